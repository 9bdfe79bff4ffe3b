package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

const testNode = "node-1"

// api is as much of an API server as a Watcher talks to.
type api struct {
	t      *testing.T
	server *httptest.Server
	addr   string

	mu        sync.Mutex
	version   int
	pods      map[types.UID]*corev1.Pod
	meta      map[string]metav1.ObjectMeta // by path
	watchers  map[chan event]bool
	streaming bool                                              // streaming lists are spoken
	refuse    func(w http.ResponseWriter, r *http.Request) bool // true: answered already
	asked     map[string]int                                    // requests by path
}

type event struct {
	Type   string `json:"type"`
	Object any    `json:"object"`
}

func newAPI(t *testing.T) *api {
	a := &api{
		t: t, version: 1, streaming: true,
		pods: make(map[types.UID]*corev1.Pod), meta: make(map[string]metav1.ObjectMeta),
		watchers: make(map[chan event]bool), asked: make(map[string]int),
	}
	a.start()
	t.Cleanup(a.stop)
	return a
}

// start listens, where it did before when it did.
func (a *api) start() {
	a.t.Helper()
	a.server = httptest.NewUnstartedServer(a)
	if a.addr != "" {
		l, err := net.Listen("tcp", a.addr)
		if err != nil {
			a.t.Fatal(err)
		}
		a.server.Listener.Close()
		a.server.Listener = l
	}
	a.server.Start()
	a.addr = a.server.Listener.Addr().String()
}

func (a *api) stop() {
	a.server.CloseClientConnections()
	a.server.Close()
}

func (a *api) set(f func(a *api)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(a)
}

func (a *api) requests(path string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked[path]
}

func (a *api) send(kind string, p *corev1.Pod) {
	for w := range a.watchers {
		w <- event{kind, p}
	}
}

// put makes or changes a pod.
func (a *api) put(p *corev1.Pod) {
	a.set(func(a *api) {
		kind := "MODIFIED"
		if a.pods[p.UID] == nil {
			kind = "ADDED"
		}
		a.version++
		p.ResourceVersion = strconv.Itoa(a.version)
		p.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
		a.pods[p.UID] = p
		a.send(kind, p)
	})
}

// remove deletes a pod; silently when no watcher is to hear of it.
func (a *api) remove(uid types.UID, silently bool) {
	a.set(func(a *api) {
		a.version++
		p := a.pods[uid].DeepCopy()
		p.ResourceVersion = strconv.Itoa(a.version)
		delete(a.pods, uid)
		if !silently {
			a.send("DELETED", p)
		}
	})
}

func failWith(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(status(code, reason))
}

func status(code int, reason metav1.StatusReason) metav1.Status {
	return metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status:   metav1.StatusFailure, Code: int32(code), Reason: reason, Message: string(reason),
	}
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.asked[r.URL.Path]++
	refuse := a.refuse
	a.mu.Unlock()
	if refuse != nil && refuse(w, r) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Path != "/api/v1/pods" {
		if !strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadata") {
			a.t.Errorf("%s: the whole object was asked for", r.URL.Path)
		}
		a.mu.Lock()
		meta, ok := a.meta[r.URL.Path]
		a.mu.Unlock()
		if !ok {
			failWith(w, http.StatusNotFound, metav1.StatusReasonNotFound)
			return
		}
		json.NewEncoder(w).Encode(metav1.PartialObjectMetadata{ObjectMeta: meta})
		return
	}
	q := r.URL.Query()
	if q.Get("fieldSelector") != "spec.nodeName="+testNode {
		a.t.Errorf("field selector %q", q.Get("fieldSelector"))
	}
	if q.Get("watch") == "" {
		list := corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}}
		a.mu.Lock()
		list.ResourceVersion = strconv.Itoa(a.version)
		for _, p := range a.pods {
			list.Items = append(list.Items, *p)
		}
		a.mu.Unlock()
		json.NewEncoder(w).Encode(list)
		return
	}
	a.watch(w, r, q.Get("sendInitialEvents") == "true")
}

func (a *api) watch(w http.ResponseWriter, r *http.Request, initial bool) {
	events := make(chan event, 100)
	a.mu.Lock()
	if initial && !a.streaming {
		a.mu.Unlock()
		failWith(w, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid)
		return
	}
	if initial {
		for _, p := range a.pods {
			events <- event{"ADDED", p}
		}
		mark := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
		mark.ResourceVersion = strconv.Itoa(a.version)
		mark.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
		events <- event{"BOOKMARK", mark}
	}
	if from, err := strconv.Atoi(r.URL.Query().Get("resourceVersion")); err == nil && !initial {
		for _, p := range a.pods {
			if v, _ := strconv.Atoi(p.ResourceVersion); v > from {
				events <- event{"ADDED", p}
			}
		}
	}
	a.watchers[events] = true
	a.mu.Unlock()
	w.(http.Flusher).Flush()
	defer a.set(func(a *api) { delete(a.watchers, events) })
	for {
		select {
		case <-r.Context().Done():
			return
		case e := <-events:
			if json.NewEncoder(w).Encode(e) != nil {
				return
			}
			w.(http.Flusher).Flush()
			if e.Type == "ERROR" {
				return
			}
		}
	}
}

// watcher starts a Watcher that ends with the test.
func (a *api) watcher(change ...func(*Config)) *Watcher {
	a.t.Helper()
	c := Config{Node: testNode, Logger: slog.New(slog.NewTextHandler(logTo{a.t}, nil))}
	for _, f := range change {
		f(&c)
	}
	w, err := newWatcher(&rest.Config{Host: "http://" + a.addr}, c)
	if err != nil {
		a.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { w.Run(ctx) })
	a.t.Cleanup(func() { cancel(); done.Wait() })
	return w
}

type logTo struct{ t *testing.T }

func (l logTo) Write(b []byte) (int, error) {
	l.t.Logf("%s", b)
	return len(b), nil
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

func id(n int) string { return fmt.Sprintf("%064x", n) }

// pod makes a pod of one container.
func pod(n int, name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "prod", UID: types.UID(fmt.Sprintf("00000000-0000-0000-0000-%012d", n))},
		Spec:       corev1.PodSpec{NodeName: testNode, Containers: []corev1.Container{{Name: "app"}}},
		Status:     corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: "app", ContainerID: "containerd://" + id(n)}}},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func controlled(apiVersion, kind, name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{
			{APIVersion: "v1", Kind: "Lease", Name: "not-the-controller"},
			{APIVersion: apiVersion, Kind: kind, Name: name, Controller: &yes},
		}
	}
}

func controller(kind, name string) metav1.ObjectMeta {
	yes := true
	return metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{{Kind: kind, Name: name, Controller: &yes}}}
}
