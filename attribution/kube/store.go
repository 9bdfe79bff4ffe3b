package kube

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tollwire/tollwire/attribution"
)

// maxTombstones bounds how many deleted pods are still known.
const maxTombstones = 1000

// configHash is the annotation of a static pod that holds the uid under which the
// kubelet runs it; the API server gives its mirror another one.
const configHash = "kubernetes.io/config.hash"

// store keeps what is used of the pods. The reflector fills it.
type store struct {
	keep      func(string) bool
	tombstone time.Duration
	owners    *owners
	synced    atomic.Bool

	mu          sync.RWMutex
	pods        map[string]*entry // by uid
	byContainer map[string]*entry
	aliases     map[string]*entry // by config hash
	dead        []*entry          // in the order of their deletion
}

// entry is a pod and what it is found by.
type entry struct {
	pod     *attribution.Pod
	alias   string
	owner   ownerKey // its controller, where that one's own owner is to be asked for
	born    time.Time
	deleted time.Time // zero while it lives
}

func newStore(o *owners, keep func(string) bool, tombstone time.Duration) *store {
	if keep == nil {
		keep = func(k string) bool { return strings.HasPrefix(k, "resource.opentelemetry.io/") }
	}
	return &store{
		keep:        keep,
		tombstone:   tombstone,
		owners:      o,
		pods:        make(map[string]*entry),
		byContainer: make(map[string]*entry),
		aliases:     make(map[string]*entry),
	}
}

func (s *store) find(uid, containerID string) (*attribution.Pod, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, e := range []*entry{s.pods[uid], s.aliases[uid], s.byContainer[containerID]} {
		if e != nil {
			return e.pod, true
		}
	}
	return nil, false
}

func (s *store) count() (alive, deleted int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.pods) - len(s.dead), len(s.dead)
}

// Add, Update, Delete, Replace and Resync are the reflector's.

func (s *store) Add(obj any) error {
	if p, ok := obj.(*corev1.Pod); ok {
		s.mu.Lock()
		s.put(p)
		s.expire()
		s.mu.Unlock()
	}
	return nil
}

func (s *store) Update(obj any) error { return s.Add(obj) }

func (s *store) Delete(obj any) error {
	if p, ok := obj.(*corev1.Pod); ok {
		s.mu.Lock()
		s.put(p) // its last state may be the first that names its containers
		s.bury(s.pods[string(p.UID)])
		s.expire()
		s.mu.Unlock()
	}
	return nil
}

func (s *store) Replace(list []any, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	listed := make(map[string]bool, len(list))
	for _, obj := range list {
		if p, ok := obj.(*corev1.Pod); ok {
			listed[string(p.UID)] = true
			s.put(p)
		}
	}
	for uid, e := range s.pods {
		if !listed[uid] {
			s.bury(e)
		}
	}
	s.synced.Store(true)
	s.expire()
	return nil
}

func (s *store) Resync() error { return nil }

// put keeps what is used of a pod.
func (s *store) put(p *corev1.Pod) {
	e := &entry{pod: s.slim(p), alias: p.Annotations[configHash], born: p.CreationTimestamp.Time}
	if old := s.pods[string(p.UID)]; old != nil {
		e.deleted = old.deleted
		if !old.deleted.IsZero() {
			for i := range s.dead {
				if s.dead[i] == old {
					s.dead[i] = e
				}
			}
		}
		s.unindex(old)
		// A container that was restarted may still have calls to finish.
		e.pod.Containers = union(e.pod.Containers, old.pod.Containers)
	}
	s.owners.fill(e, metav1.GetControllerOf(p))
	s.pods[e.pod.UID] = e
	if e.alias != "" {
		s.aliases[e.alias] = e
	}
	for _, c := range e.pod.Containers {
		if c.ID != "" {
			s.byContainer[c.ID] = e
		}
	}
}

// maxContainers bounds the ids that one pod's restarts may leave behind.
const maxContainers = 64

// union adds to now what only was, ids only.
func union(now, was []attribution.Container) []attribution.Container {
	for _, c := range was {
		if c.ID == "" || len(now) >= maxContainers {
			continue
		}
		known := false
		for _, n := range now {
			known = known || n.ID == c.ID
		}
		if !known {
			now = append(now, c)
		}
	}
	return now
}

func (s *store) bury(e *entry) {
	if e == nil || !e.deleted.IsZero() {
		return
	}
	e.deleted = time.Now()
	s.dead = append(s.dead, e)
}

// expire forgets pods that are dead for long. s.mu is held.
func (s *store) expire() {
	n := 0
	for n < len(s.dead) && (time.Since(s.dead[n].deleted) > s.tombstone || len(s.dead)-n > maxTombstones) {
		e := s.dead[n]
		delete(s.pods, e.pod.UID)
		s.unindex(e)
		n++
	}
	s.dead = append(s.dead[:0:0], s.dead[n:]...)
}

// unindex forgets all that e is found by but its uid.
func (s *store) unindex(e *entry) {
	if s.aliases[e.alias] == e {
		delete(s.aliases, e.alias)
	}
	for _, c := range e.pod.Containers {
		if s.byContainer[c.ID] == e {
			delete(s.byContainer, c.ID)
		}
	}
}

// owned renews the pods whose controller's owner has become known, and says whether there
// are any.
func (s *store) owned(key ownerKey) (any bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.pods {
		if e.owner == key {
			pod := *e.pod
			pod.Workload = maps.Clone(pod.Workload)
			e.pod = &pod
			s.owners.settle(e)
			any = true
		}
	}
	s.expire()
	return any
}

// slim returns what is used of a pod, without its owner.
func (s *store) slim(p *corev1.Pod) *attribution.Pod {
	pod := &attribution.Pod{
		UID:       string(p.UID),
		Name:      p.Name,
		Namespace: p.Namespace,
		NodeName:  p.Spec.NodeName,
		Labels:    p.Labels,
	}
	for k, v := range p.Annotations {
		if s.keep(k) {
			if pod.Annotations == nil {
				pod.Annotations = make(map[string]string)
			}
			pod.Annotations[k] = v
		}
	}
	named := make(map[string]bool)
	add := func(name, id string) {
		if _, bare, ok := strings.Cut(id, "://"); ok {
			id = bare
		}
		if id != "" {
			named[name] = true
			pod.Containers = append(pod.Containers, attribution.Container{Name: name, ID: id})
		}
	}
	for _, list := range [][]corev1.ContainerStatus{p.Status.ContainerStatuses, p.Status.InitContainerStatuses, p.Status.EphemeralContainerStatuses} {
		for i := range list {
			add(list[i].Name, list[i].ContainerID)
			if t := list[i].LastTerminationState.Terminated; t != nil {
				add(list[i].Name, t.ContainerID)
			}
		}
	}
	for _, list := range [][]corev1.Container{p.Spec.Containers, p.Spec.InitContainers} {
		for i := range list {
			if !named[list[i].Name] {
				pod.Containers = append(pod.Containers, attribution.Container{Name: list[i].Name})
			}
		}
	}
	return pod
}
