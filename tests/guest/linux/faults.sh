# Writes and verifies while the controller's fault plan strikes; the driver must say LEAST times what PATTERN matches, and lose
# nothing.
# usage: faults.sh SERIAL NAMESPACE TIMEOUT LEAST PATTERN
. "${0%/*}/common.sh"
nsid=$1 timeout=$2 least=$3 pattern=$4
find_controller
set_timeout $timeout
old=$(said "$pattern")
verify 8M 0 1
verify 8M 4M 2
times=$(($(said "$pattern") - old))
echo "$serial: \"$pattern\" $times times"
[ $times -ge $least ] || fail "\"$pattern\" was said $times times, not $least"
set_timeout 30
