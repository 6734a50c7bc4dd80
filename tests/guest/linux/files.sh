# Makes a file system of each type, fills it, trims it, and checks it and its files before and after it is mounted again.
# usage: files.sh SERIAL
. "${0%/*}/common.sh"
fill() {
    for number in $(seq 40); do
        mkdir -p $1/$((number % 5))
        dd if=/dev/urandom of=$1/$((number % 5))/$number bs=$((number * 1000)) count=7 2> /dev/null
    done
}
check_files() {
    case $type in
    ext4) e2fsck -f -n /dev/$block ;;
    xfs) xfs_repair -n /dev/$block ;;
    esac > /tmp/check.log 2>&1 || fail "$type: $(cat /tmp/check.log)"
}

old=$(complaints)
find_controller
load_file_systems
mkdir -p /mnt
for type in ext4 xfs; do
    case $type in
    ext4) mkfs.ext4 -q -F /dev/$block ;;
    xfs) mkfs.xfs -q -f /dev/$block ;;
    esac > /tmp/make.log 2>&1 || fail "$type: $(cat /tmp/make.log)"
    mount -t $type /dev/$block /mnt || fail "$type does not mount"
    fill /mnt
    rm -r /mnt/3
    fstrim /mnt || fail "$type: fstrim"
    fill /mnt/more
    fio --name=file --filename=/mnt/fio --size=16M --rw=randrw --bsrange=512-64k --ioengine=libaio --iodepth=8 --fsync=16 \
        --verify=crc32c --verify_fatal=1 > /tmp/fio.log 2>&1 || fail "$type: $(cat /tmp/fio.log)"
    (cd /mnt && find . -type f | xargs md5sum > /tmp/sums)
    umount /mnt
    check_files
    mount -t $type /dev/$block /mnt || fail "$type does not mount again"
    (cd /mnt && md5sum -c /tmp/sums) > /tmp/sums.log || fail "$type: $(grep -v OK /tmp/sums.log)"
    umount /mnt
    check_files
    echo "$type: $(wc -l < /tmp/sums) files"
done
[ "$(complaints)" = "$old" ] || fail "the kernel complains"
