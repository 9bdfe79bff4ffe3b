// Package attribution maps a process to the workload it belongs to and to a node
// of the user's own graph. It knows cgroups, /proc and Kubernetes; it knows
// nothing of calls.
package attribution

// Owner is whom a call is booked to, as far as is known. Names are those of
// OpenTelemetry's resource conventions.
type Owner struct {
	PID         uint32
	Executable  string // process.executable.name
	CommandLine string // never exported; rules may match it
	Cgroup      string // path in its hierarchy
	Unit        string // systemd unit

	ContainerID   string // container.id, 64 hex digits
	ContainerName string // k8s.container.name
	PodUID        string // k8s.pod.uid
	PodName       string
	Namespace     string            // k8s.namespace.name
	NodeName      string            // k8s.node.name
	Workload      map[string]string // k8s.deployment.name, k8s.job.name …
	PodLabels     map[string]string // allow-listed

	ServiceName      string
	ServiceNamespace string

	Graph      string // tollwire.graph
	Node       string // tollwire.node
	NodeSource string // what said so: rule:NAME, header, baggage, metadata, pod_label, workload, executable …

	Tenant  string
	Session string

	// Complete is false while the API server has not yet answered for this pod.
	Complete bool
}

// Evidence is what the call itself says of its owner.
type Evidence struct {
	Headers  map[string]string // allow-listed request headers, lower-case names
	Baggage  string            // W3C
	Metadata map[string]string // of the request's body
	KeyHash  []byte            // keyed hash of the credential
}
