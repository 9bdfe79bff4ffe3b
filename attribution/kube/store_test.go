package kube

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// A pod that crashes for ever is found by its last containers, and what it was found by
// before is forgotten.
func TestRestartsAreBounded(t *testing.T) {
	s := newStore(newOwners(&Watcher{}, time.Second), nil, time.Minute)
	const restarts = 10 * maxContainers
	for i := 1; i <= restarts; i++ {
		if err := s.Update(pod(1, "crash", func(p *corev1.Pod) { p.Status.ContainerStatuses[0].ContainerID = "containerd://" + id(i) })); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.byContainer) != maxContainers {
		t.Errorf("%d containers", len(s.byContainer))
	}
	for i, want := range map[int]bool{restarts: true, restarts - maxContainers + 1: true, restarts - maxContainers: false, 1: false} {
		if _, ok := s.find("", id(i)); ok != want {
			t.Errorf("container %d: %v", i, ok)
		}
	}
	s.tombstone = 0
	if err := s.Delete(pod(1, "crash")); err != nil {
		t.Fatal(err)
	}
	if len(s.pods)+len(s.byContainer)+len(s.aliases) != 0 {
		t.Errorf("%d pods and %d containers of a pod that is gone", len(s.pods), len(s.byContainer))
	}
}
