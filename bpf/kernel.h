// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// The words of the kernel that the taps need, and no more: integer types, map
// types, registers, and the few fields of kernel structs that are read. Fields
// are found by CO-RE, so the order and the holes of these structs mean nothing.
#pragma once

typedef unsigned char __u8;
typedef signed short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef _Bool bool;
#define true 1
#define false 0

// clang-format off
enum bpf_map_type {
	BPF_MAP_TYPE_HASH          = 1,
	BPF_MAP_TYPE_ARRAY         = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY  = 6,
	BPF_MAP_TYPE_LRU_HASH      = 9,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_RINGBUF       = 27,
};
// clang-format on

enum bpf_func_id {
	BPF_FUNC_get_attach_cookie = 174,
	BPF_FUNC_task_pt_regs = 175,
	BPF_FUNC_loop = 181,
};

// The numbers differ from kernel to kernel: they are asked for by CO-RE.
enum iter_type {
	ITER_UBUF, // since Linux 6.0
	ITER_IOVEC,
};

#define BPF_ANY 0
#define BPF_NOEXIST 1
#define BPF_RB_NO_WAKEUP 1
#define BPF_F_MMAPABLE 1024

#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define IPPROTO_TCP 6
#define TCP_ESTABLISHED 1
#define TCP_FIN_WAIT1 4
#define TCP_FIN_WAIT2 5
#define TCP_CLOSE_WAIT 8
#define TCP_LAST_ACK 9
#define TCP_CLOSING 11
#define MSG_OOB 1
#define MSG_PEEK 2
#define MSG_TRUNC 0x20
#define MSG_ERRQUEUE 0x2000

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di;
	unsigned long orig_ax, ip, cs, flags, sp, ss;
};
#elif defined(__TARGET_ARCH_arm64)
struct user_pt_regs {
	__u64 regs[31];
	__u64 sp;
	__u64 pc;
	__u64 pstate;
};
struct pt_regs {
	__u64 regs[31];
	__u64 sp;
	__u64 pc;
	__u64 pstate;
	__u64 orig_x0;
};
#endif

typedef struct {
	int counter;
} atomic_t;

typedef struct {
	__s64 counter;
} atomic64_t;

struct thread_info {
	unsigned long flags;
	__u32 status;
};

struct signal_struct {
	atomic_t live;
};

struct in6_addr {
	union {
		__u8 u6_addr8[16];
	} in6_u;
};

struct sock_common {
	__be32 skc_daddr;
	__be16 skc_dport;
	unsigned short skc_family;
	unsigned char skc_state;
	struct in6_addr skc_v6_daddr;
};

struct socket;

struct sock {
	struct sock_common __sk_common;
	__u16 sk_type;
	__u16 sk_protocol;
	struct socket *sk_socket;
};

struct socket {
	struct sock *sk;
	struct file *file;
};

// Sequence numbers and the counters of RFC 4898.
struct tcp_sock {
	__u32 rcv_nxt;
	__u32 copied_seq;
	__u32 write_seq;
	__u32 snd_una;
	__u64 bytes_received;
	__u64 bytes_acked;
};

struct iov_iter {
	__u8 iter_type;
	unsigned long iov_offset;
	unsigned long count;
	unsigned long nr_segs;
	void *__iov;
	void *ubuf;
};

// Before Linux 5.14, with the direction in the lowest bit.
struct iov_iter___flags {
	unsigned int type;
};

// Before Linux 6.4.
struct iov_iter___iov {
	void *iov;
};

struct msghdr {
	struct iov_iter msg_iter;
};

struct super_block {
	__u32 s_dev;
};

struct inode {
	unsigned short i_mode;
	unsigned long i_ino;
	struct super_block *i_sb;
};

struct file {
	struct inode *f_inode;
	void *private_data;
	atomic64_t f_count;
};

// Since Linux 6.13, where zero means one reference.
typedef struct {
	atomic64_t refcnt;
} file_ref_t;

struct file___ref {
	file_ref_t f_ref;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct task_struct {
	struct thread_info thread_info;
	void *stack;
	int pid;
	int tgid;
	__u64 start_boottime;
	struct task_struct *group_leader;
	struct files_struct *files;
	struct signal_struct *signal;
};

struct vm_area_struct {
	unsigned long vm_start;
	unsigned long vm_end;
	struct file *vm_file;
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task_vma {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	struct vm_area_struct *vma;
};

#pragma clang attribute pop

struct bpf_raw_tracepoint_args {
	__u64 args[0];
};

// A system call by perf's tracepoints, whose programs the kernel runs with preemption
// off: since Linux 7.0 a raw one's is left out for others of the CPU while it is preempted.
struct perf_syscall {
	__u64 common;
	__s64 nr;
	__s64 ret; // at the exit
};

struct iovec {
	__u64 iov_base;
	__u64 iov_len;
};

struct user_msghdr {
	__u64 msg_name;
	__u32 msg_namelen;
	__u64 msg_iov;
	__u64 msg_iovlen;
	__u64 msg_control;
	__u64 msg_controllen;
	__u32 msg_flags;
};

struct mmsghdr {
	struct user_msghdr msg_hdr;
	__u32 msg_len;
};

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define KERNEL_STACK 16384 // THREAD_SIZE of x86_64, and of arm64 with pages of 4 KiB

// The registers that the task has entered the kernel with.
static __always_inline struct pt_regs *user_regs(void)
{
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs))
		return (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
	struct task_struct *task = (void *)bpf_get_current_task();

	return BPF_CORE_READ(task, stack) + KERNEL_STACK - bpf_core_type_size(struct pt_regs);
}
