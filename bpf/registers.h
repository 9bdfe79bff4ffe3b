// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Arguments and results by the C calling convention.
#pragma once

#if defined(__TARGET_ARCH_x86)
#define ARG1(ctx) ((ctx)->di)
#define ARG2(ctx) ((ctx)->si)
#define ARG3(ctx) ((ctx)->dx)
#define ARG4(ctx) ((ctx)->cx)
#define ARG5(ctx) ((ctx)->r8)
#define ARG6(ctx) ((ctx)->r9)
#define RESULT(ctx) ((ctx)->ax)
// The return pops the address that the call pushed.
#define POPPED 8
#elif defined(__TARGET_ARCH_arm64)
#define ARG1(ctx) ((ctx)->regs[0])
#define ARG2(ctx) ((ctx)->regs[1])
#define ARG3(ctx) ((ctx)->regs[2])
#define ARG4(ctx) ((ctx)->regs[3])
#define ARG5(ctx) ((ctx)->regs[4])
#define ARG6(ctx) ((ctx)->regs[5])
#define RESULT(ctx) ((ctx)->regs[0])
#define POPPED 0
#endif
