package resources

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// maxDepth bounds how deep a hierarchy is walked.
const maxDepth = 24

// tree is a hierarchy of cgroups and the one quantity that is read from it. What a
// cgroup states holds what those below it used.
type tree struct {
	root string
	// read returns what the cgroup in this folder states; false where it says nothing.
	read func(dir string) (uint64, bool)
	// before is what each folder stated at the last walk; nil for a quantity that is
	// taken as it stands.
	before, now map[string]uint64
}

// cpuTree reads nanoseconds of all processors together: of cgroup v1 where cpuacct is
// mounted, else of v2.
func cpuTree(mount string) *tree {
	for _, name := range []string{"cpuacct", "cpu,cpuacct"} {
		if root := filepath.Join(mount, name); exists(root, "cpuacct.usage") {
			return &tree{root: root, before: map[string]uint64{}, read: func(dir string) (uint64, bool) { return number(dir, "cpuacct.usage") }}
		}
	}
	return &tree{root: unified(mount), before: map[string]uint64{}, read: func(dir string) (uint64, bool) {
		us, ok := field(dir, "cpu.stat", "usage_usec")
		return us * 1000, ok
	}}
}

// memoryTree reads bytes in use, less what the kernel can take back at once: the
// working set, as the kubelet has it.
func memoryTree(mount string) *tree {
	root, current, inactive := filepath.Join(mount, "memory"), "memory.usage_in_bytes", "total_inactive_file"
	if !exists(root, current) {
		root, current, inactive = unified(mount), "memory.current", "inactive_file"
	}
	return &tree{root: root, read: func(dir string) (uint64, bool) {
		n, ok := number(dir, current)
		idle, _ := field(dir, "memory.stat", inactive)
		return n - min(idle, n), ok
	}}
}

// walk calls book with what each cgroup used by itself, since the walk before or as it
// stands, and with a process of it: 0 for the root's, and where there is none (what
// was used by cgroups that are gone).
func (t *tree) walk(book func(pid uint32, own uint64)) {
	t.now = map[string]uint64{}
	t.folder(t.root, 0, book)
	if t.before != nil {
		t.before = t.now
	}
}

// folder returns what the cgroup and those below it used.
func (t *tree) folder(dir string, depth int, book func(uint32, uint64)) uint64 {
	var inner uint64
	if entries, err := os.ReadDir(dir); err == nil && depth < maxDepth {
		for _, e := range entries {
			if e.IsDir() {
				inner += t.folder(filepath.Join(dir, e.Name()), depth+1, book)
			}
		}
	}
	all, ok := t.read(dir)
	switch {
	case !ok: // v2's root states no memory; others are gone
		all = inner
	case t.before != nil:
		t.now[dir] = all
		if was := t.before[dir]; was <= all { // else it is another of the same name
			all -= was
		}
	}
	if own := all - min(inner, all); own > 0 {
		pid := uint32(0)
		if depth > 0 {
			pid = firstProcess(dir)
		}
		book(pid, own)
	}
	return max(all, inner)
}

// unified is where below mount cgroup v2 is: mount itself, or on hybrid machines a
// folder of it.
func unified(mount string) string {
	if dir := filepath.Join(mount, "unified"); exists(dir, "cgroup.controllers") {
		return dir
	}
	return mount
}

func exists(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

func number(dir, name string) (uint64, bool) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	return n, err == nil
}

// field reads a line "key 123" of a file.
func field(dir, name, key string) (uint64, bool) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return 0, false
	}
	for line := range bytes.Lines(b) {
		if k, v, ok := strings.Cut(strings.TrimSpace(string(line)), " "); ok && k == key {
			n, err := strconv.ParseUint(v, 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

func firstProcess(dir string) uint32 {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return 0
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	pid, _ := strconv.ParseUint(string(line), 10, 32)
	return uint32(pid)
}
