// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Sockets by fentry and fexit: a call through a trampoline in place of a trap.
#include "socket_calls.h"

char __license[] SEC("license") = "Dual BSD/GPL";

// How many arguments tcp_recvmsg has, from the kernel's BTF: its result stands
// behind them.
const volatile __u32 recvmsg_args = 5;

#define MAX_ARGS 8

// The arguments and, at an exit, the result behind them. Read from memory, so
// that the verifier takes pointers for the numbers that keys of maps are made of.
struct args {
	__u64 at[MAX_ARGS];
};

static __always_inline struct args args_of(void *ctx)
{
	struct args a;

	bpf_probe_read_kernel(&a, sizeof(a), ctx);
	return a;
}

SEC("fentry/tcp_sendmsg")
int fentry_sendmsg(void *ctx)
{
	struct args a = args_of(ctx);

	return enter(SOURCE_SOCKET_FENTRY, a.at[0], (void *)a.at[1], 0, DIR_WRITE);
}

SEC("fentry/tcp_recvmsg")
int fentry_recvmsg(void *ctx)
{
	struct args a = args_of(ctx);

	return enter(SOURCE_SOCKET_FENTRY, a.at[0], (void *)a.at[1],
		     a.at[recvmsg_flags & (MAX_ARGS - 1)], DIR_READ);
}

SEC("fexit/tcp_sendmsg")
int fexit_sendmsg(void *ctx)
{
	struct args a = args_of(ctx);

	return leave(SOURCE_SOCKET_FENTRY, a.at[0], a.at[3]);
}

SEC("fexit/tcp_recvmsg")
int fexit_recvmsg(void *ctx)
{
	struct args a = args_of(ctx);

	return leave(SOURCE_SOCKET_FENTRY, a.at[0], a.at[recvmsg_args & (MAX_ARGS - 1)]);
}

SEC("fexit/tcp_sendpage")
int fexit_sendpage(void *ctx)
{
	struct args a = args_of(ctx);

	return pages(SOURCE_SOCKET_FENTRY, a.at[0], DIR_WRITE, (__s32)a.at[5]);
}

SEC("fexit/tcp_splice_read")
int fexit_splice_read(void *ctx)
{
	struct args a = args_of(ctx);
	struct socket *socket = (void *)a.at[0];

	return pages(SOURCE_SOCKET_FENTRY, (__u64)BPF_CORE_READ(socket, sk), DIR_READ, a.at[5]);
}

SEC("fentry/tcp_close")
int fentry_close(void *ctx)
{
	return closed(SOURCE_SOCKET_FENTRY, args_of(ctx).at[0]);
}
