# Reads two blocks that fail at first. The driver tries five more times what fails without Do Not Retry: block 64 fails five
# times and can be read, block 128 fails six times and can't, block 192 fails once and says Do Not Retry.
# usage: retries.sh SERIAL NAMESPACE
. "${0%/*}/common.sh"
nsid=$1
read_block() {
    dd if=/dev/$block of=/dev/null bs=512 skip=$1 count=1 iflag=direct 2> /tmp/dd.log
}
find_controller
read_block 64 || fail "block 64: $(cat /tmp/dd.log)"
! read_block 128 || fail "block 128 was read, though it fails six times"
read_block 128 || fail "block 128 the second time: $(cat /tmp/dd.log)"
! read_block 192 || fail "block 192 was read, though its error says Do Not Retry"
read_block 192 || fail "block 192 the second time: $(cat /tmp/dd.log)"
echo "$serial: errors were tried again as they say"
