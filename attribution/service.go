package attribution

import (
	"cmp"
	"maps"
	"slices"
)

// service fills in service.* and what else is stated of the program, by
// OpenTelemetry's rules for Kubernetes
// (https://opentelemetry.io/docs/specs/semconv/non-normative/k8s-attributes): what
// the program itself says, the pod's annotations, the well-known labels if they
// are wanted, the workload, the pod, the container. Outside Kubernetes: what the
// program says, the container's name, the systemd unit, the executable.
func (o *Owner) service(own resource, pod *Pod, wellKnown bool) {
	var stated, label resource
	if pod != nil {
		stated = annotationResource(pod.Annotations)
		if wellKnown {
			label.name = cmp.Or(pod.Labels["app.kubernetes.io/instance"], pod.Labels["app.kubernetes.io/name"])
			label.version = pod.Labels["app.kubernetes.io/version"]
		}
	}
	o.ServiceName = cmp.Or(own.name, stated.name, label.name,
		firstWorkload(o.Workload), o.PodName, o.ContainerName,
		o.RuntimeName, unitName(o.Unit), o.Executable)
	o.ServiceNamespace = cmp.Or(own.namespace, stated.namespace, o.Namespace)
	o.ServiceVersion = cmp.Or(own.version, stated.version, label.version)
	o.ServiceInstanceID = cmp.Or(own.instance, stated.instance)
	if o.ServiceInstanceID == "" && o.PodName != "" && o.ContainerName != "" {
		o.ServiceInstanceID = o.Namespace + "." + o.PodName + "." + o.ContainerName
	}
	switch {
	case len(stated.other) == 0:
		o.Attributes = own.other
	case len(own.other) == 0:
		o.Attributes = stated.other
	default:
		o.Attributes = maps.Clone(own.other)
		for _, k := range slices.Sorted(maps.Keys(stated.other)) {
			if _, ok := o.Attributes[k]; !ok && len(o.Attributes) < maxAttributes {
				o.Attributes[k] = stated.other[k]
			}
		}
	}
}
