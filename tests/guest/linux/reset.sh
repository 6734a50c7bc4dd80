# Resets the controller six times under load: the kernel sends again what was in flight, and no byte is wrong. Then the driver is
# unbound and bound under load: what was in flight fails, and what was written and flushed before is there.
# usage: reset.sh SERIAL
. "${0%/*}/common.sh"
# Waits until the controller has done another $1 sectors of I/O.
progress() {
    goal=$(($(sectors) + $1))
    for round in $(seq 600); do
        [ "$(sectors)" -lt $goal ] || return 0
        sleep 0.05
    done
    fail "no progress: $(cat /sys/block/$block/stat)"
}
sectors() {
    awk '{ print $3 + $7 }' /sys/block/$block/stat
}

find_controller
round=1
while [ ! -e /tmp/stop ]; do
    verify 16M 0 $round
    round=$((round + 1))
done &
worker=$!
for round in 1 2 3 4 5 6; do
    progress 2000
    echo 1 > /sys/class/nvme/$name/reset_controller || fail "reset $round"
    find_controller
done
progress 2000
touch /tmp/stop
wait $worker || fail "fio failed during the resets"
rm /tmp/stop

verify 8M 32M 2 --end_fsync=1
fio --name=load --filename=/dev/$block --rw=randwrite --bs=4k --size=24M --ioengine=libaio --iodepth=16 --direct=1 \
    --time_based --runtime=600 > /tmp/load.log 2>&1 &
worker=$!
progress 2000
unbind
wait $worker && fail "fio went on without its device"
bind_again
fio --name=verify --filename=/dev/$block --rw=randwrite --bs=4k --size=8M --offset=32M --ioengine=libaio --iodepth=16 --direct=1 \
    --verify=crc32c --verify_only --randseed=2 > /tmp/fio.log 2>&1 || fail "after the driver came back: $(cat /tmp/fio.log)"
echo "$serial: 6 resets and an unbinding under load"
