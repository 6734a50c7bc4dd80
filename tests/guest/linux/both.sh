# Drives one controller by the kernel's driver, by ours over VFIO without an IOMMU, and by the kernel's again.
# usage: both.sh SERIAL
. "${0%/*}/common.sh"
path() {
    echo /sys/bus/pci/devices/$function/$1
}
find_controller
verify 8M 0 1
unbind
echo 1 > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode
echo vfio-pci > $(path driver_override)
echo $function > /sys/bus/pci/drivers_probe
upcie perf noiommu:$function --rw randrw --block-size 16k --depth 32 --time 2 --verify --destructive > /tmp/perf.log 2>&1 ||
    fail "our driver: $(cat /tmp/perf.log)"
grep -m 1 IOPS /tmp/perf.log
echo $function > $(path driver/unbind)
echo > $(path driver_override)
echo $function > /sys/bus/pci/drivers_probe
find_controller
verify 8M 0 2
