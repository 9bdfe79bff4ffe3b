package attribution

import (
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// maxCgroups bounds how many cgroups are remembered by id. Removed ones stay until
// newer ones need their room: a process that is gone may still be asked for.
const maxCgroups = 32 << 10

// maxDepth bounds how deep the tree is walked.
const maxDepth = 24

// cgroups finds the path of a cgroup by its id. The id that the kernel gives a
// probe (bpf_get_current_cgroup_id) is the inode number of the cgroup's folder
// in the unified hierarchy, kernel 5.5 and later on 64 bits.
type cgroups struct {
	mount  string // of the unified hierarchy; "" where there is none
	hybrid bool   // v1 is beside it, and has the controllers
	own    string // where the agent's own cgroup namespace is rooted; "" when that is not to be seen

	mu     sync.Mutex
	byID   recent[uint64, string]
	walked time.Time // end of the last walk
	took   time.Duration
}

// newCgroups looks for the unified hierarchy in the folders given, the first one
// winning. seen is where the agent itself sees its hierarchy.
func newCgroups(seen string, roots ...string) *cgroups {
	c := &cgroups{byID: newRecent[uint64, string](maxCgroups)}
	for _, root := range roots {
		if c.mount = unified(root); c.mount != "" {
			c.hybrid = c.mount != root
			break
		}
	}
	if c.mount == "" {
		return c
	}
	c.walk()
	if id, ok := inode(unified(seen)); ok {
		c.own = c.lookup(id)
	}
	return c
}

// unified returns where below root cgroup v2 is mounted: root itself, or on hybrid
// machines a folder of it.
func unified(root string) string {
	for _, dir := range []string{root, filepath.Join(root, "unified")} {
		// Of the root cgroup's files this one is in no v1 hierarchy.
		if _, err := os.Stat(filepath.Join(dir, "cgroup.controllers")); err == nil {
			return dir
		}
	}
	return ""
}

// lookup returns the path of the cgroup with this id, or "". The tree is walked
// when the id is new, but never for more than a twentieth of the time.
func (c *cgroups) lookup(id uint64) string {
	if id == 0 || c.mount == "" {
		return ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.byID.get(id); ok {
		return p
	}
	if time.Since(c.walked) < max(20*c.took, 100*time.Millisecond) {
		return ""
	}
	c.walk()
	p, _ := c.byID.get(id)
	return p
}

// absolute returns p, read from /proc/PID/cgroup, as it stands in the hierarchy.
// It stays as it is where the agent's own place is not known.
func (c *cgroups) absolute(p string) string {
	if c.own == "" || p == "" {
		return p
	}
	return join(c.own, p)
}

func (c *cgroups) walk() {
	start := time.Now()
	c.folder(".", 0, maxCgroups)
	c.walked = time.Now()
	c.took = c.walked.Sub(start)
}

// folder remembers the folder at rel and those below it, room of them at most, and
// returns how much room is left. Folders that vanish meanwhile are passed over.
func (c *cgroups) folder(rel string, depth, room int) int {
	full := filepath.Join(c.mount, rel)
	id, ok := inode(full)
	if !ok || room == 0 || depth > maxDepth {
		return room
	}
	c.byID.put(id, filepath.Join("/", rel))
	room--
	entries, err := os.ReadDir(full)
	if err != nil {
		return room
	}
	for _, e := range entries {
		if e.Type()&fs.ModeDir != 0 {
			room = c.folder(filepath.Join(rel, e.Name()), depth+1, room)
		}
	}
	return room
}
