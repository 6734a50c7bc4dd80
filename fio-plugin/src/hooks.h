/*
 * The interface between the C files of the shim. They alone are compiled against fio's headers.
 */
#ifndef UPCIE_FIO_HOOKS_H
#define UPCIE_FIO_HOOKS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "config-host.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "fio.h"
#include "optgroup.h"
/* verify.h needs it, and os.h has it for fio's own code alone. */
#ifndef le32_to_cpu
#define le32_to_cpu(value) le32toh(value)
#endif
#include "verify.h"

#include "shim.h"

/*
 * Data placement, by the version of the hooks in fio's headers: 32 (fio 3.34) has the hook fdp_fetch_ruhs, and a directive in
 * each unit. Since 35 (fio 3.38) the hook is called twice, for the number of handles and then with room for as many; before, it
 * is called once, with room for FETCHED_ONCE.
 */
#define HAS_PLACEMENT (FIO_IOOPS_VERSION >= 32)
#define FETCHES_TWICE (FIO_IOOPS_VERSION >= 35)
#define FETCHED_ONCE 128

/* No option is at offset 0, because fio takes that for no offset. */
struct engine_options {
	void *padding;
	unsigned int nsid;
	unsigned int wait;
	unsigned int hugepage;
	unsigned int queue_depth;
	unsigned int priority;
	unsigned int fua;
	unsigned long long timeout_us;
	unsigned int sgl;
	unsigned int metadata;
	unsigned int action;
	char *checks;
	unsigned int tag;
	unsigned int mask;
	unsigned int write_mode;
	unsigned int verify_mode;
};

/* The table of options (options.c). */
extern struct fio_option upcie_shim_options[];

/* Fails a job; returns the error (shim.c). */
int upcie_shim_fail_job(struct thread_data *td, int error);

/* The hooks outside of the hot path (setup.c). */
int fio_upcie_setup(struct thread_data *td);
int fio_upcie_init(struct thread_data *td);
void fio_upcie_cleanup(struct thread_data *td);
int fio_upcie_open_file(struct thread_data *td, struct fio_file *f);
int fio_upcie_close_file(struct thread_data *td, struct fio_file *f);
int fio_upcie_get_file_size(struct thread_data *td, struct fio_file *f);
int fio_upcie_get_zoned_model(struct thread_data *td, struct fio_file *f, enum zbd_zoned_model *model);
int fio_upcie_report_zones(struct thread_data *td, struct fio_file *f, uint64_t offset, struct zbd_zone *zones,
			   unsigned int count);
int fio_upcie_reset_wp(struct thread_data *td, struct fio_file *f, uint64_t offset, uint64_t len);
int fio_upcie_get_max_open_zones(struct thread_data *td, struct fio_file *f, unsigned int *most);
#if HAS_PLACEMENT
int fio_upcie_fetch_ruhs(struct thread_data *td, struct fio_file *f, struct fio_ruhs_info *info);
#endif
int fio_upcie_invalidate(struct thread_data *td, struct fio_file *f);
int fio_upcie_io_u_init(struct thread_data *td, struct io_u *io_u);
int fio_upcie_iomem_alloc(struct thread_data *td, size_t bytes);
void fio_upcie_iomem_free(struct thread_data *td);

#endif
