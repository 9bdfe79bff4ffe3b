package kube

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/tollwire/tollwire/attribution"
	"github.com/tollwire/tollwire/flow"
)

func TestPods(t *testing.T) {
	for _, streaming := range []bool{true, false} {
		t.Run(fmt.Sprintf("streaming list %v", streaming), func(t *testing.T) {
			a := newAPI(t)
			a.streaming = streaming
			static := "8b1f9a3cd27d1f0e55aa0c1b2d3e4f50"
			a.put(pod(1, "web", func(p *corev1.Pod) {
				p.Labels = map[string]string{"tollwire.io/node": "front"}
				p.Annotations = map[string]string{
					"resource.opentelemetry.io/service.name": "shop",
					"kubectl.kubernetes.io/last-applied":     strings.Repeat("x", 1000),
				}
				p.Spec.InitContainers = []corev1.Container{{Name: "init"}}
				p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "init", ContainerID: "cri-o://" + id(11)}}
				p.Status.EphemeralContainerStatuses = []corev1.ContainerStatus{{Name: "debug", ContainerID: "docker://" + id(12)}}
				p.Status.ContainerStatuses[0].LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ContainerID: "containerd://" + id(13)}
			}))
			a.put(pod(2, "etcd", controlled("v1", "Node", testNode), func(p *corev1.Pod) {
				p.Annotations = map[string]string{configHash: static}
			}))
			w := a.watcher()
			eventually(t, "the list", w.Synced)

			p, ok := w.Pod("00000000-0000-0000-0000-000000000001", "")
			if !ok || p.Name != "web" || p.Namespace != "prod" || p.NodeName != testNode || !p.Resolved || p.Labels["tollwire.io/node"] != "front" {
				t.Fatalf("%+v, %v", p, ok)
			}
			if len(p.Annotations) != 1 || p.Annotations["resource.opentelemetry.io/service.name"] != "shop" {
				t.Errorf("annotations %v", p.Annotations)
			}
			want := []attribution.Container{{Name: "app", ID: id(1)}, {Name: "app", ID: id(13)}, {Name: "init", ID: id(11)}, {Name: "debug", ID: id(12)}}
			if !slices.Equal(p.Containers, want) {
				t.Errorf("containers %v", p.Containers)
			}
			if q, _ := w.Pod("", id(11)); q != p {
				t.Error("not found by its init container")
			}
			if q, ok := w.Pod(static, ""); !ok || q.Name != "etcd" || !q.Resolved || q.Controller != "" {
				t.Errorf("static pod: %+v, %v", q, ok)
			}
			if _, ok := w.Pod("", ""); ok {
				t.Error("found a pod by nothing")
			}
			a.put(pod(3, "late"))
			eventually(t, "a pod made later", func() bool { _, ok := w.Pod("", id(3)); return ok })
			// Its container is restarted: both ids are its own.
			a.put(pod(3, "late", func(p *corev1.Pod) { p.Status.ContainerStatuses[0].ContainerID = "containerd://" + id(33) }))
			eventually(t, "the restarted container", func() bool { _, ok := w.Pod("", id(33)); return ok })
			if _, ok := w.Pod("", id(3)); !ok {
				t.Error("the container before its restart is unknown")
			}
			if s := w.Stats(); s.Pods != 3 || s.Deleted != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestOwners(t *testing.T) {
	a := newAPI(t)
	born := metav1.NewTime(time.Unix(29_000_000*60+30, 0))
	at := func(p *corev1.Pod) { p.CreationTimestamp = born }
	labels := func(kv ...string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Labels = map[string]string{kv[0]: kv[1]} }
	}
	a.meta["/apis/apps/v1/namespaces/prod/replicasets/rollout-abc"] = controller("Rollout", "rollout")
	a.meta["/apis/apps/v1/namespaces/prod/replicasets/old-1"] = controller("Deployment", "old")
	a.meta["/apis/apps/v1/namespaces/prod/replicasets/alone"] = metav1.ObjectMeta{}
	a.meta["/apis/batch/v1/namespaces/prod/jobs/nightly-29000000"] = controller("CronJob", "nightly")
	a.meta["/apis/batch/v1/namespaces/prod/jobs/once"] = metav1.ObjectMeta{}
	a.refuse = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/secret-29000000") {
			failWith(w, http.StatusForbidden, metav1.StatusReasonForbidden)
			return true
		}
		if strings.HasSuffix(r.URL.Path, "/old-1") && a.requests(r.URL.Path) < 3 {
			failWith(w, http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable)
			return true
		}
		return false
	}
	cases := []struct {
		name       string
		change     []func(*corev1.Pod)
		workload   map[string]string
		controller string
	}{
		{"bare", nil, nil, ""},
		{"deployment", []func(*corev1.Pod){controlled("apps/v1", "ReplicaSet", "web-5d4f"), labels("pod-template-hash", "5d4f")},
			map[string]string{"k8s.replicaset.name": "web-5d4f", "k8s.deployment.name": "web"}, "web"},
		{"deployment without a hash", []func(*corev1.Pod){controlled("apps/v1", "ReplicaSet", "old-1")},
			map[string]string{"k8s.replicaset.name": "old-1", "k8s.deployment.name": "old"}, "old"},
		{"rollout", []func(*corev1.Pod){controlled("apps/v1", "ReplicaSet", "rollout-abc"), labels("rollouts-pod-template-hash", "abc")},
			map[string]string{"k8s.replicaset.name": "rollout-abc"}, "rollout"},
		{"replica set alone", []func(*corev1.Pod){controlled("apps/v1", "ReplicaSet", "alone")},
			map[string]string{"k8s.replicaset.name": "alone"}, "alone"},
		{"stateful set", []func(*corev1.Pod){controlled("apps/v1", "StatefulSet", "db")}, map[string]string{"k8s.statefulset.name": "db"}, "db"},
		{"daemon set", []func(*corev1.Pod){controlled("apps/v1", "DaemonSet", "ds")}, map[string]string{"k8s.daemonset.name": "ds"}, "ds"},
		{"job", []func(*corev1.Pod){controlled("batch/v1", "Job", "once")}, map[string]string{"k8s.job.name": "once"}, "once"},
		{"cron job", []func(*corev1.Pod){controlled("batch/v1", "Job", "nightly-29000000"), at},
			map[string]string{"k8s.job.name": "nightly-29000000", "k8s.cronjob.name": "nightly"}, "nightly"},
		{"cron job that may not be read", []func(*corev1.Pod){controlled("batch/v1", "Job", "secret-29000000"), at},
			map[string]string{"k8s.job.name": "secret-29000000", "k8s.cronjob.name": "secret"}, "secret"},
		{"job that is gone", []func(*corev1.Pod){controlled("batch/v1", "Job", "gone-12345678"), at},
			map[string]string{"k8s.job.name": "gone-12345678"}, "gone-12345678"},
		{"another kind", []func(*corev1.Pod){controlled("ray.io/v1", "RayCluster", "ray")}, nil, "ray"},
		{"another group's job", []func(*corev1.Pod){controlled("batch.volcano.sh/v1", "Job", "vol")}, nil, "vol"},
	}
	for i, c := range cases {
		a.put(pod(100+i, c.name, c.change...))
	}
	w := a.watcher()
	for i, c := range cases {
		var p *attribution.Pod
		eventually(t, "the owner of "+c.name, func() bool {
			p, _ = w.Pod("", id(100+i))
			return p != nil && p.Resolved
		})
		if !maps.Equal(p.Workload, c.workload) || p.Controller != c.controller {
			t.Errorf("%s: workload %v, controller %q", c.name, p.Workload, p.Controller)
		}
	}
	if n := a.requests("/apis/apps/v1/namespaces/prod/replicasets/web-5d4f"); n != 0 {
		t.Errorf("a deployment's replica set was asked for %d times", n)
	}
	// A second pod of the same job costs no second question.
	before := a.requests("/apis/batch/v1/namespaces/prod/jobs/nightly-29000000")
	a.put(pod(200, "again", controlled("batch/v1", "Job", "nightly-29000000"), at))
	eventually(t, "the second pod", func() bool { p, ok := w.Pod("", id(200)); return ok && p.Resolved })
	if n := a.requests("/apis/batch/v1/namespaces/prod/jobs/nightly-29000000"); n != before || n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// The API server refuses, and later does not.
func TestForbidden(t *testing.T) {
	a := newAPI(t)
	a.refuse = func(w http.ResponseWriter, _ *http.Request) bool {
		failWith(w, http.StatusForbidden, metav1.StatusReasonForbidden)
		return true
	}
	a.put(pod(1, "web"))
	w := a.watcher()
	eventually(t, "a refusal", func() bool { return w.Stats().Failures["forbidden"] > 0 })
	if w.Synced() {
		t.Error("synced by a refusal")
	}
	a.set(func(a *api) { a.refuse = nil })
	eventually(t, "the pod", func() bool { _, ok := w.Pod("", id(1)); return ok })
}

// A refusal to name an owner does not stand for ever: an API server that has just started
// refuses what it allows a moment later.
func TestOwnerRefused(t *testing.T) {
	a := newAPI(t)
	const path = "/apis/batch/v1/namespaces/prod/jobs/nightly-2"
	a.meta[path] = controller("CronJob", "nightly")
	var allowed atomic.Bool
	var refused atomic.Uint64
	a.refuse = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != path || allowed.Load() {
			return false
		}
		refused.Add(1)
		failWith(w, http.StatusForbidden, metav1.StatusReasonForbidden)
		return true
	}
	a.put(pod(1, "nightly", controlled("batch/v1", "Job", "nightly-2")))
	w := a.watcher(func(c *Config) { c.RefusedFor = 100 * time.Millisecond })
	resolved := func(controller string) func() bool {
		return func() bool { p, ok := w.Pod("", id(1)); return ok && p.Resolved && p.Controller == controller }
	}
	eventually(t, "what is known without it", resolved("nightly-2"))
	eventually(t, "a second refusal", func() bool { return refused.Load() > 1 })
	allowed.Store(true)
	eventually(t, "the owner", resolved("nightly"))
	if n, want := w.Stats().Failures["forbidden"], refused.Load(); n != want {
		t.Errorf("%d refusals are counted, %d were made", n, want)
	}
}

// The watch has expired: what happened meanwhile is learnt from a new list, and
// what is no longer there keeps its name.
func TestExpired(t *testing.T) {
	a := newAPI(t)
	a.put(pod(1, "web"))
	a.put(pod(2, "job"))
	w := a.watcher()
	eventually(t, "both", func() bool { return w.Stats().Pods == 2 })
	a.remove(pod(2, "").UID, true)
	a.set(func(a *api) {
		for c := range a.watchers {
			c <- event{"ERROR", status(http.StatusGone, metav1.StatusReasonExpired)}
		}
	})
	eventually(t, "a new list", func() bool { s := w.Stats(); return s.Pods == 1 && s.Deleted == 1 })
	if w.Stats().Failures["expired"] == 0 {
		t.Error("not counted")
	}
	if p, ok := w.Pod("", id(2)); !ok || p.Name != "job" {
		t.Error("a pod that was deleted unseen is forgotten at once")
	}
	a.put(pod(3, "new"))
	eventually(t, "a pod after that", func() bool { _, ok := w.Pod("", id(3)); return ok })
}

// The API server goes away and comes back.
func TestAway(t *testing.T) {
	a := newAPI(t)
	a.put(pod(1, "web"))
	w := a.watcher()
	eventually(t, "the pod", func() bool { _, ok := w.Pod("", id(1)); return ok })
	a.stop()
	eventually(t, "an unreachable server", func() bool { return w.Stats().Failures["unreachable"] > 0 })
	if p, ok := w.Pod("", id(1)); !ok || p.Name != "web" {
		t.Error("a known pod is forgotten while the API server is away")
	}
	a.start()
	a.put(pod(2, "new"))
	eventually(t, "a pod after that", func() bool { _, ok := w.Pod("", id(2)); return ok })
}

// An API server that accepts and does not answer is one that is away, and says so.
func TestHanging(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w, err := newWatcher(&rest.Config{Host: "https://" + l.Addr().String()}, Config{Node: testNode})
	if err != nil {
		t.Fatal(err)
	}
	go w.Run(t.Context())
	eventually(t, "a timeout", func() bool { return w.Stats().Failures["timeout"] > 0 })
}

func TestTombstones(t *testing.T) {
	a := newAPI(t)
	for i := range 4 {
		a.put(pod(i, fmt.Sprint("p", i)))
	}
	const life = 400 * time.Millisecond
	w := a.watcher(func(c *Config) { c.Tombstone = life })
	eventually(t, "the pods", func() bool { return w.Stats().Pods == 4 })
	a.remove(pod(1, "").UID, false)
	eventually(t, "the deletion", func() bool { return w.Stats().Deleted == 1 })
	if p, ok := w.Pod("", id(1)); !ok || p.Name != "p1" {
		t.Error("a dead pod has no name")
	}
	time.Sleep(life)
	a.put(pod(9, "next"))
	eventually(t, "the end of the dead", func() bool { _, ok := w.Pod("", id(1)); return !ok && w.Stats().Deleted == 0 })

	w.pods.mu.Lock()
	defer w.pods.mu.Unlock()
	for i := range 3 * maxTombstones {
		w.pods.put(pod(1000+i, "x"))
		w.pods.bury(w.pods.pods[string(pod(1000+i, "").UID)])
		w.pods.expire()
	}
	if len(w.pods.dead) > maxTombstones || len(w.pods.pods) > maxTombstones+10 || len(w.pods.byContainer) > maxTombstones+10 {
		t.Errorf("%d dead, %d pods, %d containers", len(w.pods.dead), len(w.pods.pods), len(w.pods.byContainer))
	}
}

// A call is booked to what is known, and completed when a slow API server answers.
func TestSlow(t *testing.T) {
	a := newAPI(t)
	gate := make(chan struct{})
	a.refuse = func(_ http.ResponseWriter, r *http.Request) bool {
		select {
		case <-gate:
		case <-r.Context().Done():
		}
		return false
	}
	a.put(pod(1, "web-5d4f-x", controlled("apps/v1", "ReplicaSet", "web-5d4f"), func(p *corev1.Pod) {
		p.Labels = map[string]string{"pod-template-hash": "5d4f", "tollwire.io/graph": "shop", "gpu": "h100"}
		p.Annotations = map[string]string{"node.tollwire.io/app": "front", "resource.opentelemetry.io/service.name": "shop-web"}
	}))
	c := attribution.Defaults()
	w := a.watcher(func(k *Config) { k.Keep = c.KeepAnnotation })

	root := t.TempDir()
	dir := filepath.Join(root, "proc/7")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"stat":    "7 (curl) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 1000 0 0",
		"cgroup":  "0::/kubepods/burstable/pod" + string(pod(1, "").UID) + "/" + id(1) + "\n",
		"cmdline": "curl\x00",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c.Proc, c.HostRoot, c.CgroupRoot = filepath.Join(root, "proc"), root, filepath.Join(root, "cgroup")
	c.Pods, c.PodLabels = w, []string{"gpu"}
	r, err := attribution.New(c)
	if err != nil {
		t.Fatal(err)
	}
	p := flow.Proc{PID: 7, Start: 1000 * 1e7}
	if o := r.Owner(p, 0, attribution.Evidence{}); o.Complete || o.ContainerID != id(1) || o.PodName != "" || o.NodeSource != "unknown" {
		t.Errorf("before the answer: %+v", o)
	}
	close(gate)
	var o attribution.Owner
	eventually(t, "the answer", func() bool {
		o = r.Owner(p, 0, attribution.Evidence{})
		return o.Complete
	})
	if o.Graph != "shop" || o.Node != "front" || o.NodeSource != "annotation" || o.PodName != "web-5d4f-x" ||
		o.Namespace != "prod" || o.ContainerName != "app" || o.NodeName != testNode || o.ServiceName != "shop-web" ||
		o.ServiceNamespace != "prod" || o.ServiceInstanceID != "prod.web-5d4f-x.app" ||
		o.Workload["k8s.deployment.name"] != "web" || o.PodLabels["gpu"] != "h100" {
		t.Errorf("after the answer: %+v", o)
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), "node name") {
		t.Errorf("no node: %v", err)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, err := New(Config{Node: "n"}); err == nil || !strings.Contains(err.Error(), "not in a cluster") {
		t.Errorf("no cluster: %v", err)
	}
	if _, err := New(Config{Node: "n", Kubeconfig: "/nonexistent"}); err == nil {
		t.Error("a kubeconfig that is not there was taken")
	}
}
