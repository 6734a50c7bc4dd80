# Compares the JSON of `upcie -o json` with nvme-cli's, which reads the same controller through the kernel's driver.
# usage: json.sh SERIAL
. "${0%/*}/common.sh"
path() {
    echo /sys/bus/pci/devices/$function/$1
}
# Keeps what `nvme $1 …` prints as $1-$feature.theirs; returns 1 if the controller does not have it.
asked() {
    nvme "$@" -o json > /tmp/printed 2> /tmp/cli.log || return 1
    # A dump of a feature's data, which is no JSON, may follow.
    jq -n input < /tmp/printed > /tmp/$1-$feature.theirs 2>> /tmp/cli.log || { rm /tmp/$1-$feature.theirs; return 1; }
}
theirs() {
    asked "$@" || fail "nvme $*: $(cat /tmp/cli.log)"
}
# Prints what `upcie $1 …` prints otherwise; what only ours has is no difference: nvme-cli may be the older one.
compare() {
    upcie "$@" -o json > /tmp/ours 2> /tmp/cli.log || fail "upcie $*: $(cat /tmp/cli.log)"
    # The firmware and the sanitize log are named after the device; each program has its own texts of sanitize states. nvme-cli also
    # decodes features, and its names of features and of commands are those of another revision of the specification.
    jq -n --slurpfile theirs /tmp/$1-$feature.theirs --slurpfile ours /tmp/ours --arg name "$1" '
        def numbers: with_entries(.key |= sub(" .*"; ""));
        def code: sub("[)].*"; ")");
        def plain:
            if $name == "fw-log" then [.[]]
            elif $name == "sanitize-log" then [.[] | .sstat.status |= code | .sanitize_state_information |= (. // {} | map_values(code))]
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
theirs fw-log $device
theirs effects-log $device -c 0
theirs list-ns $device
theirs ns-descs $device -n 1
# Log pages that not every controller has.
optional=
for log in self-test-log sanitize-log supported-log-pages fid-support-effects-log; do
    ! asked $log $device || optional="$optional $log"
done
# Values that neither driver sets; then the defaults of all others. Those that the controller does not have are left out.
features=
for feature in 1 2 4 5 6 8 10 7:1 9:1 11:1 12:1 13:1 14:1 15:1 16:1 17:1 18:1 22:1 23:1 26:1 29:1 32:1 128:1 129:1 130:1 131:1 132:1 133:1; do
    select=${feature#*:}
    [ $select != $feature ] || select=0
    case ${feature%:*} in
        5 | 130 | 131 | 132) namespace=1 ;;
        *) namespace=0 ;;
    esac
    ! asked get-feature $device -f ${feature%:*} -s $select -n $namespace || features="$features $feature"
done
for feature in 1 2 4 5 7:1 8 9:1 10 11:1; do
    case " $features " in
        *" $feature "*) ;;
        *) fail "nvme get-feature has no feature $feature: $(cat /tmp/cli.log)" ;;
    esac
done
# Last: what the controller does not have is an entry of its error log.
feature=
theirs smart-log $device
theirs error-log $device
unbind
echo 1 > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode
echo vfio-pci > $(path driver_override)
echo $function > /sys/bus/pci/drivers_probe
compare id-ctrl noiommu:$function
compare id-ns noiommu:$function --namespace 1
compare smart-log noiommu:$function
compare error-log noiommu:$function
compare fw-log noiommu:$function
compare effects-log noiommu:$function
compare list-ns noiommu:$function
compare ns-descs noiommu:$function --namespace 1
for log in $optional; do
    compare $log noiommu:$function
done
for feature in $features; do
    select=current
    [ ${feature#*:} = $feature ] || select=default
    compare get-feature noiommu:$function ${feature%:*} --select $select
done
echo $function > $(path driver/unbind)
echo > $(path driver_override)
echo $function > /sys/bus/pci/drivers_probe
find_controller
[ $fields -gt 150 ] || fail "$fields fields only"
echo "$serial: $fields fields of nvme-cli's JSON are equal; features:$features; logs:$optional"
