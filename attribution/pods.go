package attribution

import (
	"strconv"
	"strings"
	"time"
)

// Pods is what is known of the pods of this node. attribution/kube is one.
type Pods interface {
	// Pod returns the pod with this uid or, when uid is empty or unknown, the one
	// that runs this container. It never blocks. A pod that has died is still found
	// for a while.
	Pod(uid, containerID string) (*Pod, bool)
}

// Pod is what is used of a pod. It does not change once it is made.
type Pod struct {
	UID         string
	Name        string
	Namespace   string
	NodeName    string
	Labels      map[string]string
	Annotations map[string]string // those asked for only
	Containers  []Container
	// Workload holds k8s.deployment.name and its like: of the pod's controller, and of
	// that one's own.
	Workload map[string]string
	// Controller is the name of the topmost controller known, of whatever kind (an
	// Argo Rollout, a RayCluster); "" for a pod that nothing controls.
	Controller string
	// Resolved is false while the owner of the pod's controller is not known yet.
	Resolved bool
}

// Container is a container of a pod.
type Container struct {
	Name string
	ID   string // 64 hex digits; "" while the kubelet has not reported it
}

// container returns the name of the pod's container with this id. A pod of a
// single container needs no id: the kubelet reports ids late.
func (p *Pod) container(id string) string {
	for _, c := range p.Containers {
		if c.ID == id && id != "" {
			return c.Name
		}
	}
	if len(p.Containers) == 1 && p.Containers[0].ID == "" {
		return p.Containers[0].Name
	}
	return ""
}

// workloadKeys are the attributes that may name a pod's workload, in the order of
// OpenTelemetry's rules for service.name.
var workloadKeys = [...]string{
	"k8s.deployment.name",
	"k8s.replicaset.name",
	"k8s.statefulset.name",
	"k8s.daemonset.name",
	"k8s.cronjob.name",
	"k8s.job.name",
}

// firstWorkload returns the first of them that the pod has.
func firstWorkload(names map[string]string) string {
	for _, k := range workloadKeys {
		if v := names[k]; v != "" {
			return v
		}
	}
	return ""
}

// CronJobOf returns the cron job that a job's name speaks of: the controller names
// a job after the cron job and the minute it was scheduled for, since 1970. A
// number that is no minute near the pod's birth is a name like any other.
func CronJobOf(job string, born time.Time) (string, bool) {
	i := strings.LastIndexByte(job, '-')
	if i < 1 || len(job)-i-1 != 8 {
		return "", false
	}
	minutes, err := strconv.ParseInt(job[i+1:], 10, 64)
	if err != nil {
		return "", false
	}
	late := born.Sub(time.Unix(minutes*60, 0))
	if late < -time.Hour || late > 7*24*time.Hour {
		return "", false
	}
	return job[:i], true
}
