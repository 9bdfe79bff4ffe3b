// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Sockets by kprobes, where the kernel has no trampolines for fentry (arm64 before
// Linux 6.0). A return knows no arguments, so all of them share one program and
// what the entry has noted.
#include "registers.h"
#include "socket_calls.h"

char __license[] SEC("license") = "Dual BSD/GPL";

SEC("kprobe/tcp_sendmsg")
int kprobe_sendmsg(struct pt_regs *ctx)
{
	return enter(SOURCE_SOCKET_KPROBE, ARG1(ctx), (void *)ARG2(ctx), 0, DIR_WRITE);
}

SEC("kprobe/tcp_recvmsg")
int kprobe_recvmsg(struct pt_regs *ctx)
{
	__u64 fourth = ARG4(ctx), fifth = ARG5(ctx);

	return enter(SOURCE_SOCKET_KPROBE, ARG1(ctx), (void *)ARG2(ctx),
		     recvmsg_flags == 3 ? fourth : fifth, DIR_READ);
}

SEC("kprobe/tcp_sendpage")
int kprobe_sendpage(struct pt_regs *ctx)
{
	return enter(SOURCE_SOCKET_KPROBE, ARG1(ctx), NULL, 0, DIR_WRITE);
}

SEC("kprobe/tcp_splice_read")
int kprobe_splice_read(struct pt_regs *ctx)
{
	struct socket *socket = (void *)ARG1(ctx);

	return enter(SOURCE_SOCKET_KPROBE, (__u64)BPF_CORE_READ(socket, sk), NULL, 0, DIR_READ);
}

SEC("kretprobe/tcp_sendmsg")
int kprobe_return(struct pt_regs *ctx)
{
	return leave(SOURCE_SOCKET_KPROBE, 0, RESULT(ctx));
}

SEC("kprobe/tcp_close")
int kprobe_close(struct pt_regs *ctx)
{
	return closed(SOURCE_SOCKET_KPROBE, ARG1(ctx));
}
