# Drives the NVMe controller with serial number $1 through the guest kernel's own driver, whose interrupts must be of the kind that
# /proc/interrupts calls $2: I/O with verification while a processor goes and comes back, the driver unbound and bound
# again, I/O. Prints how many interrupts there were; ends with an error when they are not as many as make sense, or
# when the kernel had to do without one.
# usage: linux-driver.sh SERIAL KIND LEAST MOST (interrupts per 100 I/Os)
set -eu
fail() {
    echo "$*" >&2
    dmesg | tail -20 >&2
    exit 1
}
complaints() {
    dmesg | grep -cE 'completion polled|nobody cared|nvme[0-9]+: .*(timeout|I/O.*abort|controller is down)' || true
}
# Sets the controller's name, its PCI function, and its block device.
find_controller() {
    for round in $(seq 100); do
        for path in /sys/class/nvme/nvme*; do
            [ "$(tr -d ' ' < $path/serial)" = "$serial" ] || continue
            name=${path##*/}
            function=$(basename "$(readlink -f $path/device)")
            block=$(ls /dev | grep "^${name}n1\$") && [ "$(cat $path/state)" = live ] && return 0
        done
        sleep 0.2
    done
    fail "no live controller with serial number $serial"
}
interrupts() {
    grep -E "${name}q[0-9]" /proc/interrupts | grep -- "$kind" |
        awk '{ for (i = 2; i <= NF && $i ~ /^[0-9]+$/; i++) sum += $i } END { print sum + 0 }'
}
verify() {
    fio --name=verify --filename=/dev/$block --rw=randwrite --bs=4k --size=$1 --offset=$2 --ioengine=libaio --iodepth=16 \
        --direct=1 --verify=crc32c --do_verify=1 --verify_fatal=1 --verify_backlog=256 --randseed=$3 > /tmp/fio.log 2>&1 ||
        fail "fio: $(cat /tmp/fio.log)"
    # No timeout was waited for: a lost interrupt costs the driver's 30 s.
    count=$(grep -oE 'issued rwts: total=[0-9]+,[0-9]+' /tmp/fio.log | tr -c '0-9\n' ' ' | awk '{ print $1 + $2 }')
    [ "$count" -gt 0 ] || fail "fio counted no I/O: $(cat /tmp/fio.log)"
}

serial=$1 kind=$2 least=$3 most=$4
old=$(complaints)
find_controller
before=$(interrupts)
verify 8M 0 1 &
worker=$!
for round in 1 2; do
    echo 0 > /sys/devices/system/cpu/cpu1/online
    sleep 0.3
    echo 1 > /sys/devices/system/cpu/cpu1/online
    sleep 0.3
done
wait $worker || exit 1
verify 4M 8M 2
ios=$count
between=$(interrupts)
verify 8M 0 3
after=$(interrupts)
rate=$(((after - between) * 100 / count))
echo "$serial: $((after - before)) interrupts by $kind; $((after - between)) for $count I/Os"
[ $rate -ge $least ] || fail "$((after - between)) interrupts for $count I/Os are too few"
[ $rate -le $most ] || fail "$((after - between)) interrupts for $count I/Os are too many"

echo $function > /sys/bus/pci/drivers/nvme/unbind
[ ! -e /sys/class/nvme/$name ] || fail "$name is there after it was unbound"
echo $function > /sys/bus/pci/drivers/nvme/bind
find_controller
verify 2M 16M 4
[ "$(complaints)" = "$old" ] || fail "the kernel complains"
