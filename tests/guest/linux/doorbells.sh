# Writes and verifies through shadow doorbells, which Linux's driver uses by itself where OACS has bit 8: at depth, with pauses in
# which the controller stops polling and has to be rung, and after a reset, which drops them. A lost update would be a timeout.
# usage: doorbells.sh SERIAL
. "${0%/*}/common.sh"
refused() {
    dmesg | grep -c 'unable to set dbbuf' || true
}

old="$(complaints) $(refused)"
find_controller
optional=$(nvme id-ctrl /dev/$name | awk '$1 == "oacs" { print $3 }')
[ $((${optional:-0} & 0x100)) -ne 0 ] || fail "OACS is \"$optional\": no Doorbell Buffer Config"
verify 8M 0 1
total=$count
verify 512k 8M 2 --iodepth=1 --thinktime=2000
total=$((total + count))
echo 1 > /sys/class/nvme/$name/reset_controller || fail "reset"
find_controller
verify 4M 16M 3
total=$((total + count))
[ "$(complaints) $(refused)" = "$old" ] || fail "the kernel complains"
echo "$serial: $total I/Os through shadow doorbells"
