# Compares the JSON of `upcie -o json` with nvme-cli's, which reads the same controller through the kernel's driver.
# usage: json.sh SERIAL
. "${0%/*}/common.sh"
path() {
    echo /sys/bus/pci/devices/$function/$1
}
# Keeps what `nvme $1 …` prints as $1-$feature.theirs.
theirs() {
    nvme "$@" -o json > /tmp/$1-$feature.theirs 2> /tmp/cli.log || fail "nvme $*: $(cat /tmp/cli.log)"
}
# Prints what `upcie $1 …` prints otherwise; what only ours has is no difference: nvme-cli may be the older one.
compare() {
    upcie "$@" -o json > /tmp/ours 2> /tmp/cli.log || fail "upcie $*: $(cat /tmp/cli.log)"
    # The firmware log is named after the device. nvme-cli also decodes features, and its names of features and of commands are
    # those of another revision of the specification.
    jq -n --slurpfile theirs /tmp/$1-$feature.theirs --slurpfile ours /tmp/ours --arg name "$1" '
        def numbers: with_entries(.key |= sub(" .*"; ""));
        def plain:
            if $name == "fw-log" then [.[]]
            elif $name == "get-feature" then with_entries(select(.key | startswith("feature: "))) | map_values(map(del(.name)))
            elif $name == "effects-log" then map(.admin_cmd_set |= numbers | .io_cmd_set |= numbers)
            else . end;
        ($theirs[0] | plain) as $theirs | ($ours[0] | plain) as $ours
        | [$theirs | paths(scalars)] as $all
        | if ($all | length) == 0 and $name != "error-log" then "nothing to compare" else empty end,
          ($all[] | select(. as $path | ($theirs | getpath($path)) != ($ours | getpath($path)))
            | "\(.): \(. as $path | $theirs | getpath($path)) by nvme-cli, \(. as $path | $ours | getpath($path)) here")
    ' > /tmp/differences || fail "jq: $*: $(cat /tmp/$1-$feature.theirs /tmp/ours)"
    [ ! -s /tmp/differences ] || fail "$*: $(head -20 /tmp/differences)"
    fields=$((fields + $(jq '[paths(scalars)] | length' < /tmp/$1-$feature.theirs)))
}
find_controller
device=/dev/$name feature= fields=0
theirs id-ctrl $device
theirs id-ns $device -n 1
theirs smart-log $device
theirs error-log $device
theirs fw-log $device
theirs effects-log $device -c 0
# Values that neither driver sets; then the defaults of all others.
for feature in 1 2 4 5 8 10 7:1 9:1 11:1; do
    select=${feature#*:}
    [ $select != $feature ] || select=0
    theirs get-feature $device -f ${feature%:*} -s $select -n $([ ${feature%:*} = 5 ] && echo 1 || echo 0)
done
unbind
echo 1 > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode
echo vfio-pci > $(path driver_override)
echo $function > /sys/bus/pci/drivers_probe
feature=
compare id-ctrl noiommu:$function
compare id-ns noiommu:$function --namespace 1
compare smart-log noiommu:$function
compare error-log noiommu:$function
compare fw-log noiommu:$function
compare effects-log noiommu:$function
for feature in 1 2 4 5 8 10 7:1 9:1 11:1; do
    select=current
    [ ${feature#*:} = $feature ] || select=default
    compare get-feature noiommu:$function ${feature%:*} --select $select
done
echo $function > $(path driver/unbind)
echo > $(path driver_override)
echo $function > /sys/bus/pci/drivers_probe
find_controller
[ $fields -gt 150 ] || fail "$fields fields only"
echo "$serial: $fields fields of nvme-cli's JSON are equal"
