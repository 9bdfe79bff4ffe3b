// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Which inode really lies behind a mapping. On overlayfs, stat, /proc/PID/maps and
// PERF_RECORD_MMAP2 show the mount's own inode; a mapping's vm_file is the file
// of the layer below, which is the one that a uprobe is put on.
#include "kernel.h"

char __license[] SEC("license") = "Dual BSD/GPL";

struct wanted {
	__u64 start; // of the mapping
	__u32 tgid;
	__u32 pad;
};

struct real_inode {
	__u64 dev;
	__u64 ino;
};

const struct real_inode *unused_real_inode __attribute__((unused));

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct wanted);
} wanted_vma SEC(".maps");

SEC("iter/task_vma")
int vma_inode(struct bpf_iter__task_vma *ctx)
{
	struct task_struct *task = ctx->task;
	struct vm_area_struct *vma = ctx->vma;
	__u32 zero = 0;
	struct wanted *w = bpf_map_lookup_elem(&wanted_vma, &zero);
	struct real_inode real = {};
	struct file *file;

	if (!w || !task || !vma || vma->vm_start != w->start || task->tgid != w->tgid)
		return 0;
	file = vma->vm_file;
	if (!file)
		return 0;
	real.dev = file->f_inode->i_sb->s_dev;
	real.ino = file->f_inode->i_ino;
	bpf_seq_write(ctx->meta->seq, &real, sizeof(real));
	return 0;
}
