# Functions of the scripts beside this one. They drive the NVMe controller with serial number $serial through the guest
# kernel's own driver.
set -eu
fail() {
    echo "$*" >&2
    dmesg | tail -30 >&2
    exit 1
}
# Counts the kernel's lines that a healthy controller never causes.
complaints() {
    dmesg | grep -cE 'completion polled|nobody cared|nvme[0-9]+: .*(timeout|I/O.*abort|controller is down)' || true
}
# Prints the block device of namespace $nsid of the controller at path $1. The kernel numbers block devices as it finds them.
find_namespace() {
    for file in $1/nvme*n*/nsid; do
        [ -e $file ] && [ "$(cat $file)" = $nsid ] || continue
        device=${file%/nsid}
        [ -b /dev/${device##*/} ] && echo ${device##*/} && return 0
    done
    return 1
}
# Sets the controller's name, its PCI function, and the block device of namespace $nsid.
find_controller() {
    for round in $(seq 300); do
        for path in /sys/class/nvme/nvme*; do
            [ "$(tr -d ' ' < $path/serial)" = "$serial" ] || continue
            name=${path##*/}
            function=$(basename "$(readlink -f $path/device)")
            block=$(find_namespace $path) && [ "$(cat $path/state)" = live ] && return 0
        done
        sleep 0.2
    done
    fail "no live controller with serial number $serial"
}
unbind() {
    echo $function > /sys/bus/pci/drivers/nvme/unbind
    [ ! -e /sys/class/nvme/$name ] || fail "$name is there after it was unbound"
}
bind_again() {
    echo $function > /sys/bus/pci/drivers/nvme/bind
    find_controller
}
# Makes the driver wait $1 seconds for a command; the controller's queues are made anew.
set_timeout() {
    echo $1 > /sys/module/nvme_core/parameters/io_timeout
    unbind
    bind_again
}
# Writes $1 at $2 with random seed $3 and verifies it, with more options of fio behind; sets the number of I/Os.
verify() {
    size=$1 offset=$2 seed=$3
    shift 3
    fio --name=verify --filename=/dev/$block --rw=randwrite --bs=4k --size=$size --offset=$offset --ioengine=libaio \
        --iodepth=16 --direct=1 --verify=crc32c --do_verify=1 --verify_fatal=1 --verify_backlog=256 --randseed=$seed "$@" \
        > /tmp/fio.log 2>&1 || fail "fio: $(cat /tmp/fio.log)"
    count=$(grep -oE 'issued rwts: total=[0-9]+,[0-9]+' /tmp/fio.log | tr -c '0-9\n' ' ' | awk '{ print $1 + $2 }')
    [ "$count" -gt 0 ] || fail "fio counted no I/O: $(cat /tmp/fio.log)"
}
load_file_systems() {
    for module in $(cat /modules/later); do
        loaded=$(basename $module .ko | tr - _)
        # Another script may load it at the same time.
        grep -q "^$loaded " /proc/modules || insmod /modules/$module 2> /dev/null || grep -q "^$loaded " /proc/modules ||
            fail "$module can't be loaded"
    done
}
# Counts the kernel's lines that match $1.
said() {
    dmesg | grep -cE "$name: .*($1)" || true
}
serial=$1 nsid=1
shift
