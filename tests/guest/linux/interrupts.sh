# I/O with verification while a processor goes and comes back, the driver unbound and bound again, I/O. The interrupts must be
# of the kind that /proc/interrupts calls KIND. Prints how many there were; ends with an error when they are not as many
# as make sense, or when the kernel had to do without one: a lost interrupt costs the driver's timeout of 30 s.
# usage: interrupts.sh SERIAL KIND LEAST MOST (interrupts per 100 I/Os)
. "${0%/*}/common.sh"
kind=$1 least=$2 most=$3
interrupts() {
    grep -E "${name}q[0-9]" /proc/interrupts | grep -- "$kind" |
        awk '{ for (i = 2; i <= NF && $i ~ /^[0-9]+$/; i++) sum += $i } END { print sum + 0 }'
}

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
between=$(interrupts)
verify 8M 0 3
after=$(interrupts)
rate=$(((after - between) * 100 / count))
echo "$serial: $((after - before)) interrupts by $kind; $((after - between)) for $count I/Os"
[ $rate -ge $least ] || fail "$((after - between)) interrupts for $count I/Os are too few"
[ $rate -le $most ] || fail "$((after - between)) interrupts for $count I/Os are too many"
unbind
bind_again
verify 2M 16M 4
[ "$(complaints)" = "$old" ] || fail "the kernel complains"
