#!/bin/sh
# Makes the parts of the guest that depend on the kernel, from Debian's packages:
#   OUT/vmlinuz, OUT/busybox, and in OUT/modules (some built again) and OUT/stock (all as Debian has them)
#   *.ko, order (those to load at boot, in order) and later (those of file systems, in order)
#
# usage: build-modules.sh KERNEL DEBS OUT
#   KERNEL  release of the kernel, such as 6.12.1+deb13-amd64
#   DEBS    directory with linux-image, linux-headers (two), linux-kbuild, linux-source and
#           busybox-static, of one version; it is also the scratch space
#
# The kernel is Debian's as it is. Its VFIO modules are built again, out of tree, since Debian
# leaves CONFIG_IOMMUFD, CONFIG_VFIO_DEVICE_CDEV and CONFIG_VFIO_NOIOMMU off, and all three only
# concern modules. Nothing is installed on this machine.
set -eu
kernel=$1 debs=$(realpath "$2") out=$(realpath "$3")
flavour=${kernel##*-}
version=${kernel%-"$flavour"}
series=$(echo "$kernel" | cut -d. -f1,2)
root=$debs/root source=$debs/linux-source-$series work=$debs/vfio
mkdir -p "$root" "$work/pci" "$work/iommufd"

for package in "linux-image-$kernel" "linux-headers-$kernel" "linux-headers-$version-common" \
    "linux-kbuild-$version" busybox-static; do
    dpkg-deb -x "$debs/$package"_*.deb "$root"
done
dpkg-deb --fsys-tarfile "$debs/linux-source-${series}"_*.deb |
    tar -xO "./usr/src/linux-source-$series.tar.xz" | xz -dc -T0 |
    tar -x -C "$debs" --wildcards "linux-source-$series/drivers/vfio/*" \
        "linux-source-$series/drivers/iommu/*" "linux-source-$series/lib/interval_tree.c"

# The headers name each other by the path that they would be installed at.
headers=$root/usr/src/linux-headers-$kernel
for makefile in "$headers/Makefile" "$root/usr/src/linux-headers-$version-common/Makefile"; do
    sed -i "s,\(^\|[ =]\)/usr/src/,\1$root/usr/src/,g" "$makefile"
done

cp "$source"/drivers/vfio/*.[ch] "$source"/drivers/iommu/*.h "$work"
cp "$source"/drivers/vfio/pci/*.[ch] "$work/pci"
cp "$source"/drivers/iommu/iommufd/*.[ch] "$work/iommufd"
# The module is called iommufd, so no object may be.
mv "$work/iommufd.c" "$work/vfio_iommufd.c"
# Of the interval tree, the kernel already has all but the span iterator.
sed -e '/^INTERVAL_TREE_DEFINE/,/^EXPORT_SYMBOL_GPL(interval_tree_iter_next)/d' \
    -e '/^EXPORT_SYMBOL_GPL/d' "$source/lib/interval_tree.c" > "$work/iommufd/interval_span.c"
cat > "$work/Kbuild" <<KBUILD
ccflags-y += -DCONFIG_IOMMUFD_MODULE=1 -DCONFIG_IOMMUFD_DRIVER=1 -DCONFIG_INTERVAL_TREE_SPAN_ITER=1
ccflags-y += -DCONFIG_VFIO_NOIOMMU=1 -DCONFIG_VFIO_DEVICE_CDEV=1
ccflags-y += -I$source/drivers/iommu -I$source/drivers/vfio
obj-m += vfio.o vfio_iommu_type1.o vfio-pci-core.o vfio-pci.o iommufd.o
vfio-y := vfio_main.o device_cdev.o group.o vfio_iommufd.o container.o virqfd.o
vfio-pci-core-y := pci/vfio_pci_core.o pci/vfio_pci_intrs.o pci/vfio_pci_rdwr.o pci/vfio_pci_config.o
vfio-pci-y := pci/vfio_pci.o pci/vfio_pci_igd.o
iommufd-y := \$(addprefix iommufd/, device.o fault.o hw_pagetable.o io_pagetable.o ioas.o main.o \\
    pages.o vfio_compat.o interval_span.o iova_bitmap.o)
KBUILD
make -C "$headers" M="$work" -j"$(nproc)" CONFIG_DEBUG_INFO_BTF_MODULES= modules

modules=$(dirname "$(find "$root" -path "*/lib/modules/$kernel/kernel" -prune)")
base=${modules%/lib/modules/*}
PATH=$PATH:/usr/sbin:/sbin

# Copies the lab's modules, and what they need, to a directory. Those of `later` are not loaded at boot.
collect() {
    mkdir -p "$1"
    depmod -b "$base" "$kernel"
    copy "$1" virtio_pci virtio_blk 9p 9pnet_virtio vfio_iommu_type1 vfio_pci uio_pci_generic nvme > "$1/order"
    copy "$1" ext4 xfs | grep -vxFf "$1/order" > "$1/later"
}

# Copies modules, and what they need, to the directory $1; prints their names in the order to load them.
copy() {
    directory=$1
    shift
    for module; do
        modprobe -d "$base" -S "$kernel" --show-depends "$module"
    done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' | while read -r file; do
        name=$(basename "$file")
        case $name in
        *.xz) name=${name%.xz}; xz -dc "$file" > "$directory/$name" ;;
        *.zst) name=${name%.zst}; zstd -qdc "$file" > "$directory/$name" ;;
        *) cp "$file" "$directory/$name" ;;
        esac
        echo "$name"
    done
}

collect "$out/stock"
# depmod prefers updates/ over the kernel's own, and finds that vfio now needs iommufd.
mkdir -p "$modules/updates"
strip -g "$work"/*.ko
cp "$work"/*.ko "$modules/updates"
collect "$out/modules"
for module in vfio vfio_iommu_type1 vfio-pci uio_pci_generic; do
    for set in stock modules; do
        grep -q "^$module.ko$" "$out/$set/order" || { echo "no module $module in $set" >&2; exit 1; }
    done
done
grep -q '^iommufd.ko$' "$out/modules/order" || { echo "no module iommufd" >&2; exit 1; }
cp "$root/boot/vmlinuz-$kernel" "$out/vmlinuz"
cp "$(find "$root" -type f -path '*bin/busybox')" "$out/busybox"
