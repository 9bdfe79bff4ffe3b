// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Go's crypto/tls, (*Conn).Read and (*Conn).Write, at their entry and at each of
// their RET instructions. No uretprobe: it would put its trampoline's address on
// a stack that Go's runtime walks and moves. A goroutine may go to sleep in a
// call and wake on another thread, so the goroutine is the key of the call.
//
// Registers by Go's ABIInternal (go.dev/src/cmd/compile/abi-internal): amd64
// since Go 1.17, arm64 since 1.18. The first words of struct g are stack.lo and
// stack.hi (runtime/runtime2.go).
#include "tls.h"

char __license[] SEC("license") = "Dual BSD/GPL";

#if defined(__TARGET_ARCH_x86)
#define GO_ARG1(ctx) ((ctx)->ax)
#define GO_ARG2(ctx) ((ctx)->bx)
#define GO_ARG3(ctx) ((ctx)->cx)
#define GO_G(ctx) ((ctx)->r14)
#elif defined(__TARGET_ARCH_arm64)
#define GO_ARG1(ctx) ((ctx)->regs[0])
#define GO_ARG2(ctx) ((ctx)->regs[1])
#define GO_ARG3(ctx) ((ctx)->regs[2])
#define GO_G(ctx) ((ctx)->regs[28])
#endif

struct go_stack {
	__u64 lo;
	__u64 hi;
};

// The stack may move between entry and return, but what lies on it keeps its
// distance from stack.hi; so frames and buffers on the stack are told by that.
static __always_inline int go_enter(struct pt_regs *ctx, __u8 dir)
{
	__u64 id = bpf_get_current_pid_tgid(), g = GO_G(ctx);
	struct call_key key = {.task = id >> 32, .g = g};
	struct call call = {.conn = GO_ARG1(ctx), .buf = GO_ARG2(ctx), .dir = dir};
	struct go_stack stack = {};
	struct call *outer;

	if (is_self(id >> 32) || bpf_probe_read_user(&stack, sizeof(stack), (void *)g))
		return 0;
	call.frame = ctx->sp - stack.hi;
	// A tls.Conn over another one: the outer call has the plaintext that matters.
	outer = bpf_map_lookup_elem(&calls, &key);
	if (outer && outer->frame > call.frame && outer->conn != call.conn)
		return 0;
	if (call.buf >= stack.lo && call.buf < stack.hi) {
		call.buf = stack.hi - call.buf;
		call.on_stack = 1;
	}
	call.time = bpf_ktime_get_ns();
	bpf_map_update_elem(&calls, &key, &call, BPF_ANY);
	return 0;
}

SEC("uprobe/go_read")
int gotls_read(struct pt_regs *ctx)
{
	return go_enter(ctx, DIR_READ);
}

SEC("uprobe/go_write")
int gotls_write(struct pt_regs *ctx)
{
	before_write(bpf_get_current_pid_tgid(), SOURCE_GOTLS, GO_ARG1(ctx), GO_ARG2(ctx), GO_ARG3(ctx));
	return go_enter(ctx, DIR_WRITE);
}

// io.EOF is an *errors.errorString, whose only field is the text. It may come along
// with the last bytes.
static __always_inline bool is_eof(__u64 err)
{
	struct {
		__u64 text;
		__u64 len;
	} s = {};
	__u32 text = 0;

	return !bpf_probe_read_user(&s, sizeof(s), (void *)err) && s.len == 3 &&
	       !bpf_probe_read_user(&text, 3, (void *)s.text) && text == ('E' | 'O' << 8 | 'F' << 16);
}

// What the function was told, where it has put it above its return address.
struct go_told {
	__u64 conn;
	__u64 buf;
	__s64 len;
};

// A call's return. spilled: of a Read that keeps what it was told above its return address,
// as user space has found in its code. A goroutine waits for an answer there, or a server
// for a request, when it is tapped; so that it was not seen to begin.
static __always_inline int go_leave(struct pt_regs *ctx, bool spilled)
{
	__u64 id = bpf_get_current_pid_tgid(), g = GO_G(ctx), buf;
	struct call_key key = {.task = id >> 32, .g = g};
	struct call *call = bpf_map_lookup_elem(&calls, &key);
	struct go_stack stack = {};
	struct go_told told = {};
	struct call done = {};
	__s64 n = GO_ARG1(ctx);

	if (call) { // else of one over another tls.Conn, perhaps
		if (bpf_probe_read_user(&stack, sizeof(stack), (void *)g) ||
		    call->frame != ctx->sp - stack.hi)
			return 0;
		done = *call;
		buf = done.on_stack ? stack.hi - done.buf : done.buf;
		bpf_map_delete_elem(&calls, &key);
	} else {
		if (!spilled || is_self(id >> 32) ||
		    bpf_probe_read_user(&told, sizeof(told), (void *)(ctx->sp + 8)) || n > told.len)
			return 0;
		done.conn = told.conn;
		done.dir = DIR_READ;
		buf = told.buf;
	}
	if (n > 0)
		call_bytes(id, &done, SOURCE_GOTLS, buf, n);
	if (done.dir == DIR_READ && GO_ARG2(ctx) && is_eof(GO_ARG3(ctx)))
		call_eof(id, &done, SOURCE_GOTLS);
	return 0;
}

SEC("uprobe/go_return")
int gotls_return(struct pt_regs *ctx)
{
	return go_leave(ctx, false);
}

SEC("uprobe/go_read_return")
int gotls_read_return(struct pt_regs *ctx)
{
	return go_leave(ctx, true);
}

// clientHandshake and serverHandshake are used as values, so that the compiler
// keeps them as functions; both take the connection first.
SEC("uprobe/go_handshake")
int gotls_handshake(struct pt_regs *ctx)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct conn_key key = {.key = GO_ARG1(ctx), .tgid = id >> 32, .source = SOURCE_GOTLS};

	// Data that was seen already makes this a renegotiation.
	if (bpf_map_lookup_elem(&conns, &key))
		session_end(SOURCE_GOTLS, key.key);
	return session_birth(SOURCE_GOTLS, key.key);
}

SEC("uprobe/go_close")
int gotls_close(struct pt_regs *ctx)
{
	return session_end(SOURCE_GOTLS, GO_ARG1(ctx));
}
