// Package attribution maps a process to the workload it belongs to and to a node
// of the user's own graph. It knows cgroups, /proc and Kubernetes; it knows
// nothing of calls.
package attribution

// Owner is whom a call is booked to, as far as is known. Names are those of
// OpenTelemetry's resource conventions. Its maps are shared and read only.
type Owner struct {
	PID        uint32
	Executable string // process.executable.name
	Cgroup     string // path in its hierarchy
	Unit       string // systemd unit
	// Source is what the process was read from: "proc"; "cgroup" when it was gone
	// and only the kernel's cgroup id was left; "" when nothing was.
	Source string

	ContainerID      string // container.id: 64 hex digits, ECS's form on Fargate
	ContainerRuntime string // container.runtime.name: containerd, cri-o, docker, podman; "" when the path does not say
	ContainerName    string // k8s.container.name
	RuntimeName      string // container.name: what the runtime calls it, outside Kubernetes
	PodUID           string // k8s.pod.uid
	PodName          string
	Namespace        string            // k8s.namespace.name
	NodeName         string            // k8s.node.name
	Workload         map[string]string // k8s.deployment.name, k8s.job.name …
	PodLabels        map[string]string // allow-listed; keys as on the pod

	ServiceName       string
	ServiceNamespace  string
	ServiceVersion    string
	ServiceInstanceID string
	// Attributes are further resource attributes that the pod's annotations
	// resource.opentelemetry.io/* or the process's OTEL_RESOURCE_ATTRIBUTES state.
	Attributes map[string]string

	Graph string // tollwire.graph
	Node  string // tollwire.node
	// NodeSource is what said so: header, baggage, metadata, session, annotation,
	// label, rule:NAME, or by default workload, pod, service, container, unit,
	// executable; "default" when the configuration's own default did, unknown when
	// Node is empty.
	NodeSource string

	Tenant  string
	Session string
	// Capped says which names became "other", for the bound on distinct ones.
	Capped Capped
	// Baggage is what the call's baggage says under the keys that are carried.
	Baggage map[string]string

	// Complete is false while the API server has not yet answered for this pod.
	Complete bool
}

// Capped are the names of an Owner that a bound had no room for.
type Capped struct{ Graph, Node, Tenant bool }

// Evidence is what the call itself says of its owner.
type Evidence struct {
	Headers  map[string]string // allow-listed request headers, lower-case names
	Baggage  string            // W3C, its allow-listed members
	Metadata map[string]string // of the request's body
	Session  string            // that the protocol itself names: MCP's
	KeyHash  []byte            // keyed hash of the credential
}
