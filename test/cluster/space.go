//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The whole cluster lives in a mount and a network namespace of its own, so nothing
// of the machine's network or folders changes, and all of it is gone with its last
// process. What these do not hold (processes that outlive their parents, cgroups, the
// run's folder) is swept up when the run ends, or where it was killed by the next one.

// shadowed are the folders that runtime, kubelet and agent write to wherever they are told to;
// inside, each is an empty one.
var shadowed = []string{"/run", "/var/log", "/var/lib/cni", "/var/lib/kubelet", "/var/lib/tollwire"}

// made is the list, in the run's folder, of those that this machine did not have.
const made = "made"

// makeFolders makes those that are missing.
func makeFolders(dir string) error {
	list, err := os.Create(filepath.Join(dir, made))
	if err != nil {
		return err
	}
	defer list.Close()
	for _, folder := range shadowed {
		if _, err := os.Stat(folder); err == nil {
			continue
		}
		fmt.Fprintln(list, folder)
		if err := os.Mkdir(folder, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// removeFolders removes those that a run has made, unless something is in them now.
func removeFolders(dir string) {
	list, _ := os.ReadFile(filepath.Join(dir, made))
	for folder := range strings.FieldsSeq(string(list)) {
		os.Remove(folder)
	}
}

// tracefs is a folder of the node that the DaemonSet mounts.
const tracefs = "/sys/kernel/tracing"

// inside says that this process is the inner one, and which folder is its run's.
const inside = "TOLLWIRE_CLUSTER_DIR"

// addresses of the node's own network; pods are in 10.244.7.0/24.
const (
	nodeAddress  = "10.0.7.1"
	modelAddress = "10.0.7.2"  // llmsim
	apiAddress   = "10.96.0.1" // of the service "kubernetes"
)

// contain runs this program again in namespaces of its own, and cleans up behind it.
func contain(o options) (code int, err error) {
	if err := sweepKilled(); err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("", runPrefix)
	if err != nil {
		return 1, err
	}
	lock, err := claim(dir)
	if err != nil {
		return 1, err
	}
	defer lock.Close()
	err = makeFolders(dir)
	if err == nil {
		err = makeCgroups(dir)
	}
	if err == nil {
		code, err = enter(dir)
	}
	err = errors.Join(err, sweep(dir), removeCgroups(dir))
	removeFolders(dir)
	if o.keep {
		kept := strings.Replace(dir, runPrefix, "tollwire-kept-", 1)
		fmt.Fprintln(os.Stderr, "cluster: kept", kept)
		return code, errors.Join(err, os.Rename(dir, kept))
	}
	return code, errors.Join(err, os.RemoveAll(dir))
}

// enter runs the inner process, and returns how it ended.
func enter(dir string) (code int, err error) {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM, Setpgid: true,
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	runtime.LockOSThread() // the signal comes at the end of the thread, not of the process
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("enter namespaces: %w", err)
	}
	go func() {
		for s := range stop {
			cmd.Process.Signal(s)
		}
	}()
	cmd.Wait()
	return cmd.ProcessState.ExitCode(), nil
}

// runPrefix begins the name of a run's folder and of its cgroup.
const runPrefix = "tollwire-cluster-"

// claim marks a run's folder as in use for as long as the file is open. It fails
// while the run that it belongs to goes on.
func claim(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("claim %s: %w", dir, err), f.Close())
	}
	return f, nil
}

// sweepKilled cleans up behind runs that were killed before they could.
func sweepKilled() error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), runPrefix+"*"))
	for _, dir := range dirs {
		f, cerr := claim(dir)
		if cerr != nil {
			continue
		}
		err = errors.Join(err, sweep(dir), removeCgroups(dir))
		removeFolders(dir)
		err = errors.Join(err, os.RemoveAll(dir), f.Close())
	}
	return err
}

// sweep ends every process of the run, until there is none.
func sweep(dir string) error {
	for range 500 {
		all := processesOf(dir)
		if len(all) == 0 {
			return nil
		}
		for _, pid := range all {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("processes of %s do not end: %v", dir, processesOf(dir))
}

// processesOf returns the processes of a run but this one: in its mount namespace, and
// in those of its containers, something of its folder is mounted.
func processesOf(dir string) (all []int) {
	mounts, _ := filepath.Glob("/proc/[0-9]*/mountinfo")
	for _, m := range mounts {
		b, err := os.ReadFile(m)
		if err != nil || !bytes.Contains(b, []byte(dir+"/")) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(m))); err == nil && pid != os.Getpid() {
			all = append(all, pid)
		}
	}
	return all
}

// cgroupRoots are the mounts of all cgroup hierarchies.
func cgroupRoots() []string {
	roots := []string{"/sys/fs/cgroup"}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return roots
	}
	hybrid, _ := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	roots = nil
	for _, procs := range hybrid {
		roots = append(roots, filepath.Dir(procs))
	}
	return roots
}

// makeCgroups makes the run's own cgroup in every hierarchy: the kubelet takes pods
// that it does not know in its cgroup for leftovers and ends them, and so must not
// see those of this machine's own kubelet.
func makeCgroups(dir string) error {
	for _, root := range cgroupRoots() {
		if err := os.Mkdir(filepath.Join(root, filepath.Base(dir)), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// removeCgroups removes the run's cgroup and those below it. The last processes may
// take a moment to leave.
func removeCgroups(dir string) (err error) {
	for range 200 {
		err = nil
		for _, root := range cgroupRoots() {
			var all []string
			filepath.WalkDir(filepath.Join(root, filepath.Base(dir)), func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					all = append(all, path)
				}
				return nil
			})
			for _, c := range slices.Backward(all) {
				if rerr := os.Remove(c); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
					err = errors.Join(err, rerr)
				}
			}
		}
		if err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}

// furnish makes the namespaces ready: addresses, names, and the folders that runtime and
// kubelet write to. The sysctls that kubelet would set for the whole machine are shadowed.
func furnish(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// Pods' volumes are handed on from here.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share mounts: %w", err)
	}
	for _, folder := range shadowed {
		if err := unix.Mount("tmpfs", folder, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mount %s: %w", folder, err)
		}
	}
	if events, _ := os.ReadDir(tracefs); len(events) == 0 { // systemd's work
		if err := unix.Mount("tracefs", tracefs, "tracefs", 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", tracefs, err)
		}
	}
	for file, text := range map[string]string{
		"/proc/sys/vm/overcommit_memory": "1", "/proc/sys/kernel/panic": "10", "/proc/sys/kernel/panic_on_oops": "1",
		"/etc/hosts": "127.0.0.1 localhost\n" + modelAddress + " api.openai.com api.anthropic.com",
	} {
		shadow := filepath.Join(dir, "shadow", file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(shadow), 0o755), os.WriteFile(shadow, []byte(text+"\n"), 0o644)); err != nil {
			return err
		}
		if err := unix.Mount(shadow, file, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("shadow %s: %w", file, err)
		}
	}
	// The first namespace of its kind makes /run/netns a mount of its own; made while
	// pods run, it would keep theirs from being taken away.
	for _, args := range []string{
		"link set lo up",
		"address add " + nodeAddress + "/32 dev lo",
		"address add " + modelAddress + "/32 dev lo",
		"address add " + apiAddress + "/32 dev lo",
		"netns add first",
		"netns delete first",
	} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", args, err, out)
		}
	}
	return nil
}
