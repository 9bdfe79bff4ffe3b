package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"

	"github.com/tollwire/tollwire/attribution"
)

// ownerKey is a controller of pods that has an owner of its own.
type ownerKey struct{ kind, namespace, name string }

// owner is what owns such a controller. The zero owner means: nothing does.
type owner struct{ kind, name string }

// maxOwners bounds how many answers are remembered.
const maxOwners = 4096

// askTimeout bounds one question for an owner.
const askTimeout = 10 * time.Second

// owners finds what pods' controllers belong to. Most of it stands in the pod
// itself; the API server is asked for the rest, once each.
type owners struct {
	w          *Watcher
	queue      workqueue.TypedRateLimitingInterface[ownerKey]
	refusedFor time.Duration

	mu    sync.Mutex
	known map[ownerKey]owner
}

func newOwners(w *Watcher, refusedFor time.Duration) *owners {
	return &owners{
		w: w,
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[ownerKey](200*time.Millisecond, 15*time.Second)),
		refusedFor: refusedFor,
		known:      make(map[ownerKey]owner),
	}
}

// fill names the workload of a pod by its controller, as far as is known now, and
// asks for the rest.
func (o *owners) fill(e *entry, ref *metav1.OwnerReference) {
	pod := e.pod
	pod.Resolved = true
	if ref == nil || ref.Kind == "Node" { // a static pod's mirror
		return
	}
	pod.Controller = ref.Name
	group, _, _ := strings.Cut(ref.APIVersion, "/")
	switch {
	case ref.Kind == "ReplicaSet" && group == "apps":
		pod.Workload = map[string]string{"k8s.replicaset.name": ref.Name}
		// The deployment controller names its replica set after itself and the hash
		// that it puts on the pods; nobody else uses this label.
		if hash := pod.Labels["pod-template-hash"]; hash != "" {
			if name, ok := strings.CutSuffix(ref.Name, "-"+hash); ok {
				pod.Workload["k8s.deployment.name"] = name
				pod.Controller = name
				return
			}
		}
	case ref.Kind == "Job" && group == "batch":
		pod.Workload = map[string]string{"k8s.job.name": ref.Name}
	case ref.Kind == "StatefulSet" && group == "apps":
		pod.Workload = map[string]string{"k8s.statefulset.name": ref.Name}
		return
	case ref.Kind == "DaemonSet" && group == "apps":
		pod.Workload = map[string]string{"k8s.daemonset.name": ref.Name}
		return
	default:
		return
	}
	e.owner = ownerKey{ref.Kind, pod.Namespace, ref.Name}
	o.settle(e)
}

// settle completes a pod whose controller's owner is known, or asks for it. The
// entry's pod is nobody else's yet.
func (o *owners) settle(e *entry) {
	o.mu.Lock()
	top, ok := o.known[e.owner]
	o.mu.Unlock()
	if e.pod.Resolved = ok; !ok {
		o.queue.Add(e.owner)
		return
	}
	e.pod.Controller = e.owner.name
	delete(e.pod.Workload, "k8s.cronjob.name") // a guess, made while it was refused
	if top.kind == unknownKind {
		top = owner{}
		if name, ok := attribution.CronJobOf(e.owner.name, e.born); ok && e.owner.kind == "Job" {
			top = owner{"CronJob", name}
		}
	}
	if top.name == "" {
		return
	}
	e.pod.Controller = top.name
	switch top.kind {
	case "Deployment":
		e.pod.Workload["k8s.deployment.name"] = top.name
	case "CronJob":
		e.pod.Workload["k8s.cronjob.name"] = top.name
	}
}

// unknownKind marks the owner of a controller that the API server would not or
// could no longer show.
const unknownKind = "?"

// run answers questions until ctx is done; each answer is told, which says whether
// anyone wants to know.
func (o *owners) run(ctx context.Context, tell func(ownerKey) bool) {
	go func() {
		<-ctx.Done()
		o.queue.ShutDown()
	}()
	for {
		key, shutdown := o.queue.Get()
		if shutdown {
			return
		}
		o.mu.Lock()
		top, known := o.known[key]
		o.mu.Unlock()
		if known && top.kind != unknownKind {
			o.queue.Forget(key)
			o.queue.Done(key)
			continue
		}
		top, err := o.ask(ctx, key)
		if err != nil {
			o.w.failed("get the owner of "+strings.ToLower(key.kind)+" "+key.namespace+"/"+key.name, err)
			if transient(err) {
				o.queue.AddRateLimited(key)
				o.queue.Done(key)
				continue
			}
			top = owner{kind: unknownKind}
		}
		o.mu.Lock()
		if len(o.known) >= maxOwners {
			clear(o.known)
		}
		o.known[key] = top
		o.mu.Unlock()
		o.queue.Forget(key)
		o.queue.Done(key)
		if tell(key) && (apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err)) {
			o.queue.AddAfter(key, o.refusedFor)
		}
	}
}

// ask gets the metadata of a controller, and no more of it.
func (o *owners) ask(ctx context.Context, key ownerKey) (owner, error) {
	path := "/apis/apps/v1/namespaces/" + key.namespace + "/replicasets/" + key.name
	if key.kind == "Job" {
		path = "/apis/batch/v1/namespaces/" + key.namespace + "/jobs/" + key.name
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	raw, err := o.w.client.Get().AbsPath(path).
		SetHeader("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json").
		DoRaw(ctx)
	if err != nil {
		return owner{}, err
	}
	var meta metav1.PartialObjectMetadata
	if err := json.Unmarshal(raw, &meta); err != nil {
		return owner{}, fmt.Errorf("read metadata: %w", err)
	}
	if ref := metav1.GetControllerOf(&meta); ref != nil {
		return owner{ref.Kind, ref.Name}, nil
	}
	return owner{}, nil
}
