package probes

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// kernel tries what the taps are made of, each by itself, so that one thing that is
// missing does not hide another.
func (c *checker) kernel() {
	const old = "a newer kernel: "
	_, err := os.Stat("/sys/kernel/btf/vmlinux")
	c.feature("BTF of the kernel", err, "nothing is captured: kernel structs are read by CO-RE", "a kernel with CONFIG_DEBUG_INFO_BTF=y; check that /sys is mounted")
	c.feature("ring buffer", features.HaveMapType(ebpf.RingBuf), "nothing is captured", old+"5.8 or later")
	c.feature(featureUprobes, c.uprobe, "no TLS is read", "a kernel with CONFIG_UPROBE_EVENTS=y and CONFIG_PERF_EVENTS=y")
	c.feature("uprobe_multi", features.HaveBPFLinkUprobeMulti(), "a perf event for each function: attaching takes longer", old+"6.6 or later")
	c.feature("probe cookies", features.HaveProgramHelper(ebpf.Kprobe, asm.FnGetAttachCookie), "an answer without a stated length ends when its session is freed (OpenSSL 1.1.1 and 3.0)", old+"5.15 or later")
	c.feature("bpf_loop", features.HaveProgramHelper(ebpf.Kprobe, asm.FnLoop), "of one call 24 pieces are read, of up to 16 KiB and one segment each; all of an HTTP/2 connection crosses", old+"5.17 or later")
	c.feature("raw tracepoints", tryRawTracepoint(), "plaintext sockets and the ends of processes are not seen", "a kernel with CONFIG_BPF_EVENTS=y")
	if running().rawPreempts {
		c.feature("perf tracepoints", perfTracepoints(), "while this kernel has preempted a task inside of a program, system calls of stripped TLS, and of sockets without kprobes, are missed", "mount tracefs at /sys/kernel/tracing; for a pod as a hostPath")
	}
	real, err := newRealInodes()
	if err == nil {
		real.close()
	}
	c.feature("iter/task_vma", err, "files behind overlay mounts are told apart by mount: as many traps as pods of one image", old+"5.12 or later")
	watch, err := watchMappings()
	if err == nil {
		watch.free()
	}
	c.feature("PERF_RECORD_MMAP2", err, fmt.Sprintf("programs that start are found after up to %v", sweepEvery), "a kernel with CONFIG_PERF_EVENTS=y; kernel.perf_event_paranoid below 1 or CAP_PERFMON")
	c.feature("/proc/PID/map_files", tryMapFiles(), "files that were deleted or replaced under a running program are not tapped", "CAP_CHECKPOINT_RESTORE; a kernel with CONFIG_CHECKPOINT_RESTORE=y")
	c.feature("host PID namespace", c.tryPIDs(), "processes of the machine are not found, pids do not match", "hostPID: true for a pod, --pid=host for a container")
	c.feature("programs that read memory", features.HaveProgramHelper(ebpf.Kprobe, asm.FnProbeReadKernel), "nothing is captured", "boot with lockdown=integrity or none: lockdown=confidentiality forbids it")
}

// nothing returns a program that does nothing.
func nothing(t ebpf.ProgramType, attach ebpf.AttachType, to string) (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "tollwire_check", Type: t, AttachType: attach, AttachTo: to, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
}

// tryUprobe attaches to the agent's own entry point, which never runs again, in the
// way in which the taps attach: by uprobe_multi where the kernel has it, which asks
// for less than a perf event.
func tryUprobe() error {
	const self = "/proc/self/exe"
	f, err := elf.Open(self)
	if err != nil {
		return fmt.Errorf("open own executable: %w", err)
	}
	defer f.Close()
	off, ok := fileOffset(f, f.Entry)
	if !ok {
		return errors.New("own executable has no entry point")
	}
	multi := features.HaveBPFLinkUprobeMulti() == nil
	attach := ebpf.AttachNone
	if multi {
		attach = ebpf.AttachTraceUprobeMulti
	}
	prog, err := nothing(ebpf.Kprobe, attach, "")
	if err != nil {
		return fmt.Errorf("load program: %w", err)
	}
	defer prog.Close()
	ex, err := link.OpenExecutable(self)
	if err != nil {
		return fmt.Errorf("open own executable: %w", err)
	}
	var l link.Link
	if multi {
		l, err = ex.UprobeMulti(nil, prog, &link.UprobeMultiOptions{Addresses: []uint64{off}})
	} else {
		l, err = ex.Uprobe("entry", prog, &link.UprobeOptions{Address: off})
	}
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	return l.Close()
}

func tryRawTracepoint() error {
	prog, err := nothing(ebpf.RawTracepoint, ebpf.AttachNone, "")
	if err != nil {
		return fmt.Errorf("load program: %w", err)
	}
	defer prog.Close()
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sched_process_exit", Program: prog})
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	return l.Close()
}

// tryMapFiles opens one of the agent's own mapped files, which needs the same
// capability as those of others.
func tryMapFiles() error {
	const own = "/proc/self/map_files"
	all, err := os.ReadDir(own)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return errors.New("no mapped file")
	}
	f, err := os.Open(filepath.Join(own, all[0].Name()))
	if err != nil {
		return err
	}
	return f.Close()
}

// rootPIDs is the inode of the first PID namespace (PROC_PID_INIT_INO, linux/proc_ns.h).
const rootPIDs = 0xEFFFFFFC

func (c *checker) tryPIDs() error {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return fmt.Errorf("look at the PID namespace: %w", err)
	}
	if st.Ino != rootPIDs && c.cfg.Proc == "/proc" {
		return errors.New("/proc is that of another PID namespace")
	}
	return nil
}
