package attribution

import (
	"cmp"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tollwire/tollwire/flow"
)

// Bounds of what a Resolver remembers, and for how long.
const (
	maxProcesses  = 8 << 10
	maxContainers = 2 << 10
	// reread is how long what was read of a process is believed: it may have exec'd
	// another program since.
	reread = 10 * time.Second
)

// Resolver says whom a process's calls belong to. Its methods may be called from
// any goroutine.
type Resolver struct {
	log      *slog.Logger
	proc     string
	hostRoot string
	environ  bool
	pods     Pods // the API server's; nil without one
	fallback Pods // the runtime's; or nil
	node     string
	key      []byte
	cgroups  *cgroups
	policy   atomic.Pointer[policy]

	mu         sync.Mutex
	processes  recent[flow.Proc, entry]
	containers recent[string, *containerFile] // by container id; nil: no file names it
	lastPods   recent[string, *Pod]           // by pod uid or container id: what was known last

	counts counts
}

// entry is a process, when it was read, and for which policy.
type entry struct {
	*process
	read   time.Time
	policy *policy
	gone   bool
}

type counts struct {
	proc, cgroup, none atomic.Uint64
}

// Stats counts what a Resolver did since New.
type Stats struct {
	Proc    uint64 // processes read from /proc
	Cgroup  uint64 // …gone before that, known by their cgroup's id only
	Unknown uint64 // …of which nothing is known
}

// New makes a Resolver. It starts nothing: what it needs is read when it is asked.
// The error is an Invalid when a value of c cannot be worked with.
func New(c Config) (*Resolver, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Proc == "" {
		c.Proc = "/proc"
	}
	if len(c.Key) == 0 {
		c.Key = make([]byte, 32)
		rand.Read(c.Key)
	}
	p, err := newPolicy(c)
	if err != nil {
		return nil, err
	}
	if c.HostRoot == "" {
		c.HostRoot = HostRoot(c.Proc)
	}
	r := &Resolver{
		log:        c.Logger,
		proc:       c.Proc,
		hostRoot:   c.HostRoot,
		environ:    c.Environ,
		pods:       c.Pods,
		fallback:   c.Fallback,
		node:       c.NodeName,
		key:        c.Key,
		cgroups:    newCgroups("/sys/fs/cgroup", c.CgroupMounts()...),
		processes:  newRecent[flow.Proc, entry](maxProcesses),
		containers: newRecent[string, *containerFile](maxContainers),
		lastPods:   newRecent[string, *Pod](maxContainers),
	}
	r.policy.Store(p)
	if r.cgroups.mount == "" {
		r.log.Info("no cgroup v2 hierarchy is mounted: processes that end before they are read stay unknown")
	}
	return r, nil
}

// Reload exchanges everything by which calls are booked: order, names, rules,
// session, tenant, labels. Where processes are looked for stays.
func (r *Resolver) Reload(c Config) error {
	p, err := newPolicy(c)
	if err != nil {
		return err
	}
	r.policy.Store(p)
	return nil
}

// Stats returns the counters.
func (r *Resolver) Stats() Stats {
	return Stats{Proc: r.counts.proc.Load(), Cgroup: r.counts.cgroup.Load(), Unknown: r.counts.none.Load()}
}

// Observe reads a process while it lives. It is called when a connection is first
// seen, since the process may be gone when its call is over.
func (r *Resolver) Observe(p flow.Proc, cgroupID uint64) {
	r.pod(r.identify(p, cgroupID))
}

// Owner says whom a call of the process belongs to, as far as is known now. It reads
// /proc when the process is new, and waits for nothing.
func (r *Resolver) Owner(p flow.Proc, cgroupID uint64, ev Evidence) Owner {
	return r.owner(p.PID, r.identify(p, cgroupID), ev)
}

// Process says whom a process belongs to that need not have made a call. It is read
// anew each time; the zero Owner is that of one that is gone.
func (r *Resolver) Process(pid uint32) Owner {
	pr, lines, err := readProcess(r.proc, flow.Proc{PID: pid}, r.environ, r.policy.Load().commands)
	if err != nil {
		return Owner{}
	}
	pr.place = r.place(lines, 0)
	pr.files = r.container(pr)
	r.adopt(pr)
	return r.owner(pid, pr, Evidence{})
}

func (r *Resolver) owner(pid uint32, pr *process, ev Evidence) Owner {
	pod, resolved := r.pod(pr)
	o := Owner{
		PID:              pid,
		Executable:       pr.exe,
		Cgroup:           pr.place.path,
		Unit:             pr.place.unit,
		Source:           pr.source,
		ContainerID:      pr.place.container,
		ContainerRuntime: pr.place.runtime,
		PodUID:           pr.place.podUID,
		Complete:         resolved,
	}
	if f := pr.files; f != nil {
		o.ContainerRuntime = cmp.Or(o.ContainerRuntime, f.runtime)
		o.ContainerName, o.PodName, o.Namespace = f.name, f.podName, f.namespace
		if o.PodUID == "" {
			o.RuntimeName = f.runtimeName
		}
	}
	if pod != nil {
		o.PodUID, o.PodName, o.Namespace = pod.UID, pod.Name, pod.Namespace
		o.NodeName = cmp.Or(pod.NodeName, r.node)
		o.Workload = pod.Workload
		o.ContainerName = cmp.Or(pod.container(o.ContainerID), o.ContainerName)
		if o.ContainerName == "" && o.ContainerID != "" {
			o.Complete = false // the kubelet reports a container only after it has started
		}
	}
	policy := r.policy.Load()
	o.service(pr.env, pod, policy.cfg.WellKnownLabels)
	policy.apply(&subject{owner: &o, process: pr, pod: pod, call: ev}, r.key)
	return o
}

// pod returns the process's pod, nil when it is unknown or has none, and whether
// nothing more is to be hoped for: no pod, or one that is known with its owner. A
// pod that was known once stays known. A container whose path names no pod may be
// one of a pod all the same, but is not waited for.
func (r *Resolver) pod(pr *process) (pod *Pod, resolved bool) {
	key := cmp.Or(pr.place.podUID, pr.place.container)
	if key == "" || r.pods == nil && r.fallback == nil {
		return nil, true
	}
	if r.pods != nil {
		if pod, ok := r.pods.Pod(pr.place.podUID, pr.place.container); ok {
			r.rememberPod(key, pod)
			return pod, pod.Resolved
		}
		if pod, ok := r.lastPod(key); ok {
			return pod, pod.Resolved
		}
	}
	if r.fallback != nil {
		if pod, ok := r.fallback.Pod(pr.place.podUID, pr.place.container); ok {
			if r.pods == nil {
				r.rememberPod(key, pod)
			}
			return pod, r.pods == nil
		}
	}
	if r.pods == nil {
		if pod, ok := r.lastPod(key); ok {
			return pod, true
		}
	}
	return nil, pr.place.podUID == ""
}

func (r *Resolver) rememberPod(key string, pod *Pod) {
	r.mu.Lock()
	r.lastPods.put(key, pod)
	r.mu.Unlock()
}

func (r *Resolver) lastPod(key string) (*Pod, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lastPods.get(key)
}

// identify returns what is known of a process, reading it when it is new, was read
// some time ago, or for rules that have changed since.
func (r *Resolver) identify(p flow.Proc, cgroupID uint64) *process {
	r.mu.Lock()
	known, ok := r.processes.get(p)
	r.mu.Unlock()
	policy := r.policy.Load()
	if ok && known.source != "" && (known.gone || known.policy == policy && time.Since(known.read) < reread) {
		return known.process
	}
	pr, lines, err := readProcess(r.proc, p, r.environ, policy.commands)
	switch {
	case ok && known.source != "" && (err != nil || pr.zombie):
		known.gone = true
		r.remember(p, known)
		return known.process
	case err == nil:
		pr.place = r.place(lines, cgroupID)
		pr.files = r.container(pr)
	default:
		if !errors.Is(err, errGone) {
			r.log.Debug("read process", "pid", p.PID, "err", err)
		}
		pr = &process{}
		// Beside v1, which may hold a container alone, v2 says nothing unless it names one.
		at := r.cgroups.lookup(cgroupID)
		if p := placeOf(at); at != "" && (!r.cgroups.hybrid || p.container != "" || p.podUID != "") {
			pr.source, pr.place = "cgroup", p
			pr.files = r.container(pr)
		}
	}
	r.adopt(pr)
	if !ok || known.source != pr.source {
		switch pr.source {
		case "proc":
			r.counts.proc.Add(1)
		case "cgroup":
			r.counts.cgroup.Add(1)
		default:
			if !ok {
				r.counts.none.Add(1)
			}
		}
	}
	// What only its cgroup tells will not get better: the process is gone.
	r.remember(p, entry{pr, time.Now(), policy, pr.source == "cgroup"})
	return pr
}

func (r *Resolver) remember(p flow.Proc, e entry) {
	r.mu.Lock()
	r.processes.put(p, e)
	r.mu.Unlock()
}

// place finds the container, pod and unit of a process by its cgroups. Paths in
// the unified hierarchy are made absolute first, by the kernel's cgroup id where
// they are only known in part.
func (r *Resolver) place(lines []hierarchy, cgroupID uint64) place {
	at := r.cgroups.lookup(cgroupID) // and so it is known when the process is gone
	for i, h := range lines {
		if h.id != "0" || h.controllers != "" {
			continue
		}
		if r.cgroups.own != "" {
			lines[i].path = r.cgroups.absolute(h.path)
		} else if at != "" {
			lines[i].path = at
		}
	}
	return locate(lines)
}

// adopt takes from the runtime's file what the cgroup's path did not tell.
func (r *Resolver) adopt(pr *process) {
	if pr.files != nil && pr.place.podUID == "" {
		pr.place.podUID = pr.files.podUID
	}
}

// container returns what the runtime wrote of the process's container, or nil.
func (r *Resolver) container(pr *process) *containerFile {
	id := pr.place.container
	if id == "" {
		return nil
	}
	r.mu.Lock()
	c, ok := r.containers.get(id)
	r.mu.Unlock()
	if ok {
		return c
	}
	c, err := readContainerFile(r.hostRoot, id)
	if err != nil && !errors.Is(err, errNoContainer) {
		r.log.Debug("read the container runtime's file", "container", id, "err", err)
	}
	r.mu.Lock()
	r.containers.put(id, c)
	r.mu.Unlock()
	return c
}
