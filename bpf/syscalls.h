// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// System calls on TCP sockets, as raw tracepoints show them: numbers, arguments,
// and the socket behind a descriptor.
#pragma once

#include "capture.h"

#if defined(__TARGET_ARCH_x86)
enum nr {
	NR_READ = 0,
	NR_WRITE = 1,
	NR_CLOSE = 3,
	NR_READV = 19,
	NR_WRITEV = 20,
	NR_SENDFILE = 40,
	NR_SENDTO = 44,
	NR_RECVFROM = 45,
	NR_SENDMSG = 46,
	NR_RECVMSG = 47,
	NR_SPLICE = 275,
	NR_RECVMMSG = 299,
	NR_SENDMMSG = 307,
};
#define SYSCALL_ARG1(regs) BPF_CORE_READ(regs, di)
#define SYSCALL_ARG2(regs) BPF_CORE_READ(regs, si)
#define SYSCALL_ARG3(regs) BPF_CORE_READ(regs, dx)
#define SYSCALL_ARG4(regs) BPF_CORE_READ(regs, r10)
#define SYSCALL_NR(regs) BPF_CORE_READ(regs, orig_ax)
#define TS_COMPAT 2

static __always_inline bool is_compat(struct task_struct *task)
{
	return BPF_CORE_READ(task, thread_info.status) & TS_COMPAT;
}
#elif defined(__TARGET_ARCH_arm64)
enum nr {
	NR_CLOSE = 57,
	NR_READ = 63,
	NR_WRITE = 64,
	NR_READV = 65,
	NR_WRITEV = 66,
	NR_SENDFILE = 71,
	NR_SPLICE = 76,
	NR_SENDTO = 206,
	NR_RECVFROM = 207,
	NR_SENDMSG = 211,
	NR_RECVMSG = 212,
	NR_RECVMMSG = 243,
	NR_SENDMMSG = 269,
};
struct pt_regs___nr {
	int syscallno;
} __attribute__((preserve_access_index));
#define SYSCALL_ARG1(regs) BPF_CORE_READ(regs, orig_x0)
#define SYSCALL_ARG2(regs) BPF_CORE_READ(regs, regs[1])
#define SYSCALL_ARG3(regs) BPF_CORE_READ(regs, regs[2])
#define SYSCALL_ARG4(regs) BPF_CORE_READ(regs, regs[3])
#define SYSCALL_NR(regs) BPF_CORE_READ((struct pt_regs___nr *)(regs), syscallno)
#define TIF_32BIT 22

static __always_inline bool is_compat(struct task_struct *task)
{
	return BPF_CORE_READ(task, thread_info.flags) >> TIF_32BIT & 1;
}
#endif

struct tcp {
	struct file *file;
	struct sock *sk;
	__u64 ino;
};

// The TCP socket behind a descriptor of this task; false for everything else.
static __noinline __attribute__((unused)) int find_tcp(__u32 fd, struct tcp *t)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct fdtable *fdt = BPF_CORE_READ(task, files, fdt);
	struct file **slots, *file;
	struct socket *socket;
	struct inode *inode;
	struct sock *sk;
	__u16 family;

	if (fd >= BPF_CORE_READ(fdt, max_fds))
		return 0;
	slots = BPF_CORE_READ(fdt, fd);
	if (bpf_probe_read_kernel(&file, sizeof(file), slots + fd) || !file)
		return 0;
	inode = BPF_CORE_READ(file, f_inode);
	if ((BPF_CORE_READ(inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	socket = BPF_CORE_READ(file, private_data);
	sk = BPF_CORE_READ(socket, sk);
	if (!sk)
		return 0;
	family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (family != AF_INET && family != AF_INET6)
		return 0;
	if (BPF_CORE_READ(sk, sk_type) != SOCK_STREAM)
		return 0;
	t->file = file;
	t->sk = sk;
	t->ino = BPF_CORE_READ(inode, i_ino);
	return !is_compat(task);
}

static __always_inline bool last_reference(struct file *file)
{
	struct file___ref *f = (void *)file;

	if (bpf_core_field_exists(f->f_ref))
		return BPF_CORE_READ(f, f_ref.refcnt.counter) == 0;
	return BPF_CORE_READ(file, f_count.counter) == 1;
}
