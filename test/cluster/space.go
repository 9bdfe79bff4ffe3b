//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The whole cluster lives in a mount and a network namespace of its own, so nothing
// of the machine's network or folders changes, and all of it is gone with its last
// process. What these do not hold, cgroups and orphans, the outer process sweeps up.

// shadowed are the folders that runtime and kubelet write to wherever they are told to;
// inside, each is an empty one.
var shadowed = []string{"/run", "/var/log", "/var/lib/cni", "/var/lib/kubelet"}

// makeFolders makes those that are missing, and returns them.
func makeFolders() (made []string, err error) {
	for _, folder := range shadowed {
		if _, err := os.Stat(folder); err == nil {
			continue
		}
		if err := os.Mkdir(folder, 0o755); err != nil {
			return made, err
		}
		made = append(made, folder)
	}
	return made, nil
}

// inside says that this process is the inner one.
const inside = "TOLLWIRE_CLUSTER_DIR"

// addresses of the node's own network; pods are in 10.244.7.0/24.
const (
	nodeAddress  = "10.0.7.1"
	modelAddress = "10.0.7.2"  // llmsim
	apiAddress   = "10.96.0.1" // of the service "kubernetes"
)

// contain runs this program again in namespaces of its own, and cleans up behind it.
func contain(o options) (code int, err error) {
	// Shims and pods whose parents are gone become children of this process.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 1, fmt.Errorf("become subreaper: %w", err)
	}
	dir, err := os.MkdirTemp("", "tollwire-cluster-")
	if err != nil {
		return 1, err
	}
	before := podCgroups()
	made, err := makeFolders()
	if err != nil {
		return 1, err
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM, Setpgid: true,
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	if err := cmd.Start(); err != nil {
		return 1, errors.Join(fmt.Errorf("enter namespaces: %w", err), os.RemoveAll(dir))
	}
	go func() {
		for s := range stop {
			cmd.Process.Signal(s)
		}
	}()
	cmd.Wait()
	sweep()
	if len(before) == 0 {
		for _, c := range podCgroups() {
			os.Remove(c)
		}
	}
	for _, folder := range made {
		os.Remove(folder)
	}
	if o.keep {
		fmt.Fprintln(os.Stderr, "cluster: kept", dir)
	} else {
		err = os.RemoveAll(dir)
	}
	return cmd.ProcessState.ExitCode(), err
}

// sweep ends every descendant of this process, until there is none.
func sweep() {
	for range 200 {
		children := descendants(os.Getpid())
		if len(children) == 0 {
			return
		}
		for _, pid := range children {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func descendants(of int) []int {
	parent := make(map[int]int)
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, s := range stats {
		b, err := os.ReadFile(s)
		if err != nil {
			continue
		}
		// pid (comm) state ppid …, and comm may hold anything
		fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(s)))
		parent[pid], _ = strconv.Atoi(fields[1])
	}
	var all []int
	for pid := range parent {
		for p := pid; p > 1; p = parent[p] {
			if parent[p] == of {
				all = append(all, pid)
				break
			}
		}
	}
	return all
}

// podCgroups are the kubelet's cgroups, the innermost first.
func podCgroups() []string {
	var all []string
	for _, pattern := range []string{"/sys/fs/cgroup/kubepods*", "/sys/fs/cgroup/*/kubepods*"} {
		roots, _ := filepath.Glob(pattern)
		for _, root := range roots {
			var under []string
			filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					under = append([]string{path}, under...)
				}
				return nil
			})
			all = append(all, under...)
		}
	}
	return all
}

// furnish makes the namespaces ready: addresses, and what kubelet and the agent expect
// to be mounted. The sysctls that kubelet would set for the whole machine are shadowed.
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
	for name, value := range map[string]string{"vm/overcommit_memory": "1", "kernel/panic": "10", "kernel/panic_on_oops": "1"} {
		shadow := filepath.Join(dir, "sysctl", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(shadow), 0o755), os.WriteFile(shadow, []byte(value+"\n"), 0o644)); err != nil {
			return err
		}
		if err := unix.Mount(shadow, "/proc/sys/"+name, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("shadow %s: %w", name, err)
		}
	}
	if _, err := os.Stat("/sys/kernel/tracing/events"); err != nil {
		if err := unix.Mount("nodev", "/sys/kernel/tracing", "tracefs", 0, ""); err != nil {
			return fmt.Errorf("mount tracefs: %w", err)
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
