/* process.h - a process with a store: the real service and the real store, with its threads, on a disk in memory that
 * outlives it. For the programs of tests/server; stored.h is the same on one thread. All of it fails the test. */
#ifndef TEST_PROCESS_H
#define TEST_PROCESS_H

#include <jansson.h>

#include "../../server/store/store.h"
#include "disk.h"
#include "service.h"

struct process {
    struct test_service service;
    struct srv_store *store;
};

extern const struct srv_store_options process_usual; /* two snapshots; checkpoints when asked for */
extern char process_said[4096];                      /* by stores since the last start */

extern size_t process_memory; /* the budget of those that start now; 0: the default */

/* What recovery says; the process is there in any case. */
int process_start_on(struct process *process, const struct srv_io *io,
                     const struct srv_store_options *options, bool read_only, struct nn_error *err);
int process_start_as(struct process *process, struct test_disk *disk, const struct srv_store_options *options,
                     bool read_only, struct nn_error *err);
void process_start(struct process *process, struct test_disk *disk);
/* On a disk, told as `io`, on which somebody changes "m" twice while process_checkpoint_amid_changes is at it: as soon as
 * the snapshot of "a", its first, is written. "gone" is deleted then, where it is there. */
void process_start_amid_changes(struct process *process, struct test_disk *disk, struct srv_io *io);
void process_checkpoint_amid_changes(struct process *process);
void process_checkpoint(struct process *process);
void process_wait_for_checkpoints(const struct process *process, uint64_t n);
/* As kill -9 ends it. */
void process_stop(struct process *process);
/* And the disk. */
void process_end(struct process *process, struct test_disk *disk);
/* A clean stop. */
void process_finish(struct process *process);

/* --- what it is asked --------------------------------------------------------------------------------------- */

void process_create(struct process *process, const char *name, const char *durability);
void process_step(struct process *process, int status, const char *name);
void process_steps(struct process *process, const char *name, int n);

/* A model's numbers, the optimizer's among them. */
struct process_numbers {
    char text[32768];
};
void process_look(struct process *process, const char *name, struct process_numbers *numbers);
void process_is_as(struct process *process, const char *name, const struct process_numbers *expected);
/* That "m" is the same in another process, when this one has been killed. */
void process_survives(struct process *process, struct test_disk *disk);
json_int_t process_version_of(struct process *process, const char *name);
void process_incarnation_of(struct process *process, const char *name, char incarnation[32]);

/* Two checkpoints of "m", which journals, and "n", which does not; changes behind each, and a crash: what it leaves, and
 * the two as they are to be found. */
struct test_disk *process_life(struct process_numbers *journalled, struct process_numbers *plain);

/* --- its files ---------------------------------------------------------------------------------------------- */

struct process_files {
    char names[64][128];
    size_t n;
};
struct process_files process_files_of(const struct test_disk *disk);
size_t process_count_files(const struct test_disk *disk, const char *prefix);
/* The one of these with the highest number, or `back` files before that. */
void process_newest_file(const struct test_disk *disk, const char *prefix, int back, char name[128]);
struct test_disk *process_copy_of(const struct test_disk *disk);
void process_cut(struct test_disk *disk, const char *name, uint64_t size); /* to that many bytes */

/* --- damage ------------------------------------------------------------------------------------------------- */

/* Since there were `before` operations: syncs alone. */
void process_changed_nothing(const struct test_disk *disk, size_t before);
/* A start is refused, with a line that names this, and changes nothing. */
void process_refuse(struct test_disk *disk, const char *names);
/* A start that accepts what is lost, and finds something. */
void process_accept(struct process *process, struct test_disk *disk);

#endif
