// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// The shared maps, and the end of processes.
#include "capture.h"
#include "thread.h"

char __license[] SEC("license") = "Dual BSD/GPL";

// The wire's types, so that they stand in this object's BTF for bpf2go.
const struct hdr *unused_hdr __attribute__((unused));
const enum source *unused_source __attribute__((unused));
const enum kind *unused_kind __attribute__((unused));
const enum dir *unused_dir __attribute__((unused));
const enum gap_reason *unused_gap __attribute__((unused));
const enum verdict *unused_verdict __attribute__((unused));
const enum hdr_flags *unused_flags __attribute__((unused));

// sched_process_exit runs in the exiting thread, after signal->live was counted
// down: zero says that this was the last one. A raw tracepoint needs no tracefs.
static __always_inline int on_process_exit(void)
{
	__u64 id = bpf_get_current_pid_tgid();
	__u32 tgid = id >> 32;
	struct task_struct *task = (void *)bpf_get_current_task();
	struct settings *s = settings();
	__u64 *start;

	end_thread(id);
	bpf_map_delete_elem(&sock_calls, &id);
	start = bpf_map_lookup_elem(&procs, &tgid);
	if (!start || !s || BPF_CORE_READ(task, signal, live.counter) > 0)
		return 0;
	for (__u32 i = 0; i < MAX_SHARDS; i++) {
		__u32 shard = i;

		if (i >= s->shards)
			break;
		void *ring = bpf_map_lookup_elem(&rings, &shard);

		if (!ring)
			break;
		struct hdr *h = bpf_ringbuf_reserve(ring, sizeof(*h), 0);

		if (!h) {
			count_lost_end(SOURCE_NONE);
			continue;
		}
		__builtin_memset(h, 0, sizeof(*h));
		h->time = bpf_ktime_get_ns();
		h->start = *start;
		h->cgroup = bpf_get_current_cgroup_id();
		h->pid = tgid;
		h->tid = id;
		h->kind = KIND_EXIT;
		bpf_ringbuf_submit(h, 0);
	}
	bpf_map_delete_elem(&procs, &tgid);
	return 0;
}

SEC("raw_tp/sched_process_exit")
int process_exit(void *ctx)
{
	return on_process_exit();
}

// By perf, with preemption off.
SEC("tp/sched/sched_process_exit")
int process_exit_whole(void *ctx)
{
	return on_process_exit();
}
