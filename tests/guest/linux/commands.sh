# Sends the admin commands that nvme-cli knows and our controller serves.
# usage: commands.sh SERIAL
. "${0%/*}/common.sh"
cli() {
    nvme "$@" > /tmp/cli.log 2>&1 || fail "nvme $*: $(cat /tmp/cli.log)"
}
# Sends a command that has to fail, in words that match $1.
refuse() {
    wanted=$1
    shift
    ! nvme "$@" > /tmp/cli.log 2>&1 || fail "nvme $* succeeded: $(cat /tmp/cli.log)"
    expect "$wanted"
}
expect() {
    grep -qE "$1" /tmp/cli.log || fail "no \"$1\" in: $(cat /tmp/cli.log)"
}
find_controller
device=/dev/$name
cli id-ctrl $device
expect "^sn +: $serial"
cli id-ns ${device}n1
expect '^nsze +: 0x100000'
# The identifiers that disks are known by; the OUI in them is the controller's.
expect '^nguid +: [0-9a-f]{16}027550[0-9a-f]{10}$'
expect '^eui64 +: 027550[0-9a-f]{10}$'
cli list-ns $device
expect '0:0x1|0\]:0x1'
cli ns-descs ${device}n1
expect '^nguid +: '
cli list-subsys
cli list
expect "$serial"
cli smart-log $device
expect '^critical_warning[[:space:]]*: 0'
cli error-log $device
cli fw-log $device
for feature in 1 2 4 7 8 9 10 11; do
    cli get-feature $device -f $feature
done
cli get-feature $device -f 5 -n 1
cli get-feature $device -f 5
cli get-feature $device -f 5 -n 0
cli set-feature $device -f 4 -V 0x14b
cli get-feature $device -f 4
expect '0x0*14b'
cli flush ${device}n1
echo "hello, controller" > /tmp/data
cli write ${device}n1 -s 7 -c 0 -z 512 -d /tmp/data
cli read ${device}n1 -s 7 -c 0 -z 512 -d /tmp/back
grep -q 'hello, controller' /tmp/back || fail "nvme read: $(od -c /tmp/back | head)"
cli dsm ${device}n1 -d -s 0 -b 64
cli write-zeroes ${device}n1 -s 7 -c 0
cli read ${device}n1 -s 7 -c 0 -z 512 -d /tmp/back
! grep -q 'hello' /tmp/back || fail "the zeroes were not written"
refuse 'Invalid Command Opcode' admin-passthru $device --opcode=0x7f
refuse 'Invalid Log Page' get-log $device --log-id=0x7e --log-len=512
refuse 'Invalid Field' get-feature $device -f 0x7e
refuse 'LBA Out of Range' read ${device}n1 -s 0x100000 -c 0 -z 512 -d /tmp/back
cli reset $device
find_controller
cli id-ctrl $device
echo "$serial: $(nvme version | head -1)"
