package attribution

import (
	"os"
	"path"
	"strings"
	"testing"
)

var stands = strings.NewReplacer(
	"ID", "4f0fbd8bd0f0a4a84ebd6ebf6a5fc50b3a2f1c86ac3e5c3de8a4d3c3a2b1f0e9",
	"IE", "11111111d0f0a4a84ebd6ebf6a5fc50b3a2f1c86ac3e5c3de8a4d3c3a2b1f0e9",
	"POD_", "6a6b1f34_1d9e_4f0e_9f34_0a4c6f0d7c11",
	"POD", "6a6b1f34-1d9e-4f0e-9f34-0a4c6f0d7c11",
	"HASH", "8b1f9a3cd27d1f0e55aa0c1b2d3e4f50",
)

type cgroupCase struct {
	name, text string
	want       place
}

// cgroupCases reads testdata/cgroup.txt.
func cgroupCases(t testing.TB) []cgroupCase {
	t.Helper()
	raw, err := os.ReadFile("testdata/cgroup.txt")
	if err != nil {
		t.Fatal(err)
	}
	_, cases, _ := strings.Cut(string(raw), "\n== ")
	var all []cgroupCase
	for block := range strings.SplitSeq(cases, "\n== ") {
		name, rest, _ := strings.Cut(block, "\n")
		text, want, ok := strings.Cut(rest, "->")
		if !ok {
			continue
		}
		c := cgroupCase{name: name, text: stands.Replace(text)}
		for kv := range strings.FieldsSeq(stands.Replace(want)) {
			k, v, _ := strings.Cut(kv, "=")
			switch k {
			case "container":
				c.want.container = v
			case "pod":
				c.want.podUID = v
			case "runtime":
				c.want.runtime = v
			case "unit":
				c.want.unit = v
			default:
				t.Fatalf("%s: unknown key %q", name, k)
			}
		}
		all = append(all, c)
	}
	if len(all) < 40 {
		t.Fatalf("testdata/cgroup.txt: %d cases read, want all of them", len(all))
	}
	return all
}

func TestCgroupPaths(t *testing.T) {
	for _, c := range cgroupCases(t) {
		t.Run(c.name, func(t *testing.T) {
			got := locate(parseCgroup(c.text))
			got.path = ""
			if got != c.want {
				t.Errorf("%s\n got %+v\nwant %+v", c.text, got, c.want)
			}
		})
	}
}

func TestJoinNamespaces(t *testing.T) {
	const own = "/kubepods.slice/kubepods-pod1.slice/cri-containerd-2.scope"
	for _, c := range []struct{ p, want string }{
		{"/", own},
		{"/child", own + "/child"},
		{"/..", "/kubepods.slice/kubepods-pod1.slice"},
		{"/../cri-containerd-3.scope", "/kubepods.slice/kubepods-pod1.slice/cri-containerd-3.scope"},
		{"/../../../system.slice/cron.service", "/system.slice/cron.service"},
		{"/../../../../../../etc", "/etc"},
	} {
		if got := join(own, c.p); got != c.want {
			t.Errorf("join(%q) = %q, want %q", c.p, got, c.want)
		}
	}
}

func FuzzCgroup(f *testing.F) {
	for _, c := range cgroupCases(f) {
		f.Add(c.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, h := range parseCgroup(text) {
			at := placeOf(h.path)
			if at.podUID != "" && !isUUID(at.podUID) && len(at.podUID) != 32 {
				t.Errorf("%q: pod uid %q", h.path, at.podUID)
			}
			if at.container != "" && !strings.Contains(h.path, at.container) {
				t.Errorf("%q: container %q is not in the path", h.path, at.container)
			}
			if at.unit != "" && !strings.Contains(h.path, at.unit) {
				t.Errorf("%q: unit %q is not in the path", h.path, at.unit)
			}
			if full := join("/a/b", h.path); !path.IsAbs(full) || relative(full) {
				t.Errorf("join(%q) = %q", h.path, full)
			}
		}
		locate(parseCgroup(text))
	})
}
