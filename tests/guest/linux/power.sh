# Writes files to an ext4 and an xfs, and prints the sum of each that was made durable, until the power goes (`write`). Then
# finds them all, and the file systems whole (`check`); the sums come on stdin.
# usage: power.sh SERIAL TYPE write|check
. "${0%/*}/common.sh"
type=$1 what=$2
find_controller
load_file_systems
mkdir -p /mnt/$type
case $what in
write)
    case $type in
    ext4) mkfs.ext4 -q -F /dev/$block ;;
    xfs) mkfs.xfs -q -f /dev/$block ;;
    esac > /tmp/make.$type 2>&1 || fail "$type: $(cat /tmp/make.$type)"
    mount -t $type /dev/$block /mnt/$type
    for number in $(seq 100000); do
        file=/mnt/$type/$((number % 50))
        dd if=/dev/urandom of=$file.new bs=$((number % 97 * 100 + 1)) count=11 conv=fsync 2> /dev/null
        mv $file.new $file.$number
        sync /mnt/$type
        echo "durable $type $number $(md5sum < $file.$number)"
        rm -f $file.$((number - 50))
    done
    ;;
check)
    mount -t $type /dev/$block /mnt/$type || fail "$type does not mount after the power cut"
    wanted=0
    while read -r word of number sum; do
        [ "$of" = $type ] || continue
        file=/mnt/$type/$((number % 50)).$number
        [ "$(md5sum < $file)" = "$sum" ] || fail "$type: $file is not as it was made durable"
        wanted=$((wanted + 1))
    done < /payload/durable
    umount /mnt/$type
    case $type in
    ext4) e2fsck -f -n /dev/$block ;;
    xfs) xfs_repair -n /dev/$block ;;
    esac > /tmp/check.$type 2>&1 || fail "$type: $(cat /tmp/check.$type)"
    echo "$type: $wanted files"
    ;;
esac
