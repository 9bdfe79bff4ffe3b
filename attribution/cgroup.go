package attribution

import (
	"path"
	"strings"
)

// place is what a cgroup path says of the processes in it.
type place struct {
	path      string // in its hierarchy, as far up as it could be seen
	container string // container.id
	runtime   string // container.runtime, when the path names it
	podUID    string // k8s.pod.uid, with dashes; a static pod's is its config's hash
	unit      string // systemd unit, the innermost; "" for the scope of a container
}

// hierarchy is one line of /proc/PID/cgroup: cgroups(7).
type hierarchy struct {
	id          string // "0" is cgroup v2
	controllers string // "cpu,cpuacct", "name=systemd"; empty for v2
	path        string
}

// maxCgroupFile bounds how much of a /proc/PID/cgroup file is believed: a dozen
// lines of at most PATH_MAX bytes.
const maxCgroupFile = 64 << 10

// parseCgroup reads the text of /proc/PID/cgroup. Lines that are none are left out.
func parseCgroup(text string) []hierarchy {
	var all []hierarchy
	for line := range strings.Lines(text[:min(len(text), maxCgroupFile)]) {
		id, rest, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		if !ok {
			continue
		}
		controllers, p, ok := strings.Cut(rest, ":")
		if !ok || !strings.HasPrefix(p, "/") {
			continue
		}
		// The kernel says so of a cgroup that was removed under its last processes.
		p = strings.TrimSuffix(p, " (deleted)")
		all = append(all, hierarchy{id, controllers, p})
	}
	return all
}

// locate picks the hierarchy that says the most. On v1 and hybrid machines the
// container may stand in any of them: systemd's own, or that of a controller.
func locate(all []hierarchy) place {
	var best place
	score := -1
	for _, h := range all {
		at := placeOf(h.path)
		s := 0
		if at.container != "" {
			s += 8
		}
		if at.podUID != "" {
			s += 4
		}
		if at.unit != "" {
			s += 2
		}
		switch {
		case h.path == "/":
			s--
		case h.id == "0" || h.controllers == "name=systemd":
			s++
		}
		if s > score {
			best, score = at, s
		}
	}
	return best
}

// relative says whether p was seen from inside a cgroup namespace that it lies
// outside of, so that its beginning is unknown: "/../../kubepods/…".
func relative(p string) bool { return p == "/.." || strings.HasPrefix(p, "/../") }

// join gives the path that a relative path has in the hierarchy, when the reader's
// own namespace is rooted at root.
func join(root, p string) string {
	for relative(p) {
		p = strings.TrimPrefix(p, "/..")
		root = path.Dir(root)
	}
	return path.Join("/", root, p)
}

// placeOf reads a cgroup path. It knows the shapes of containerd, CRI-O, docker,
// podman, Kubernetes, k3s, kind, ECS and systemd, with either cgroup driver, and
// whatever names a container by 64 hex digits.
//
// Where containers are nested, the one that Kubernetes or the runtime of this
// machine knows is wanted: the first below the innermost pod, else the innermost.
func placeOf(p string) place {
	at := place{path: p}
	podDepth, containerDepth := -1, -1
	depth := 0
	for segment := range strings.SplitSeq(p, "/") {
		// runc's notation slice:prefix:name, left as a plain name by the other driver.
		for part := range strings.SplitSeq(segment, ":") {
			depth++
			if uid := podOf(part); uid != "" {
				at.podUID, podDepth = uid, depth
				at.container, at.runtime, at.unit = "", "", ""
				continue
			}
			if id, runtime, ok := containerOf(part); ok {
				if podDepth < 0 || containerDepth < podDepth {
					at.container, at.runtime, containerDepth = id, runtime, depth
				}
				at.unit = ""
				continue
			}
			if isUnit(part) {
				at.unit = part
			}
		}
	}
	if at.runtime == "" && at.container != "" && at.podUID == "" && strings.Contains(p, "/docker/") {
		at.runtime = "docker"
	}
	return at
}

// podOf returns the pod's uid when the segment is a pod's: "pod<uid>" with the
// cgroupfs driver, "kubepods-burstable-pod<uid>.slice" with systemd's, which
// writes the dashes as underscores.
func podOf(s string) string {
	name, slice := strings.CutSuffix(s, ".slice")
	if slice {
		i := strings.LastIndex(name, "-pod")
		if i < 0 {
			return ""
		}
		name = name[i+1:]
	}
	uid, ok := strings.CutPrefix(name, "pod")
	if !ok {
		return ""
	}
	if slice {
		uid = strings.ReplaceAll(uid, "_", "-")
	}
	// A static pod's uid is the 32 hex digits of its config's hash.
	if isUUID(uid) || len(uid) == 32 && isHex(uid) {
		return uid
	}
	return ""
}

// runtimes are the prefixes of a container's cgroup name, and whose they are.
var runtimes = map[string]string{
	"cri-containerd": "containerd",
	"containerd":     "containerd",
	"nerdctl":        "containerd",
	"crio":           "cri-o",
	"docker":         "docker",
	"libpod":         "podman",
	"libpod-payload": "podman",
}

// containerOf returns the container's id when the segment is a container's:
// "<id>", "<prefix>-<id>", "<prefix>-<id>.scope", where an id is 64 hex digits, or
// on AWS Fargate 32 and a decimal number. A monitor's scope (crio-conmon-<id>) is
// not the container's.
func containerOf(s string) (id, runtime string, ok bool) {
	s = strings.TrimSuffix(s, ".scope")
	if i := len(s) - 64; i >= 0 && isHex(s[i:]) {
		if i == 0 {
			return s, "", true
		}
		prefix := s[:i-1]
		if s[i-1] != '-' || strings.HasSuffix(prefix, "conmon") {
			return "", "", false
		}
		return s[i:], runtimes[prefix], true
	}
	if task, n, cut := strings.Cut(s, "-"); cut && len(task) == 32 && isHex(task) && len(n) >= 9 && isDecimal(n) {
		return s, "", true
	}
	return "", "", false
}

// isUnit says whether a segment is a systemd unit that holds processes. The
// manager of a user's session is not: what it runs has units of its own.
func isUnit(s string) bool {
	if strings.HasPrefix(s, "user@") || s == "init.scope" {
		return false
	}
	name, suffix, ok := cutLast(s, '.')
	if !ok || name == "" {
		return false
	}
	switch suffix {
	case "service", "scope", "socket", "mount", "swap":
		// A monitor's scope names a container; it is no unit that anyone wrote.
		return !strings.Contains(name, "conmon-")
	}
	return false
}

func cutLast(s string, sep byte) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return s != ""
}

func isDecimal(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// isUUID says whether s is 8-4-4-4-12 lower-case hex digits.
func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if s[i] != '-' {
				return false
			}
		} else if !isHex(s[i : i+1]) {
			return false
		}
	}
	return true
}
