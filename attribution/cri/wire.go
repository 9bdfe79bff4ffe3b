package cri

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// The few fields that are used of two messages of runtime.v1, by their numbers in
// k8s.io/cri-api/pkg/apis/runtime/v1/api.proto.

// sandbox is a PodSandbox.
type sandbox struct {
	id                   string // 1
	name, uid, namespace string // 2, PodSandboxMetadata: 1, 2, 3
	created              int64  // 4, nanoseconds
	labels, annotations  map[string]string
}

// container is a Container.
type container struct {
	id      string // 1
	sandbox string // 2
	name    string // 3, ContainerMetadata: 1
}

func parseSandboxes(b []byte) ([]sandbox, error) {
	var all []sandbox
	err := fields(b, func(n protowire.Number, _ uint64, item []byte) error {
		if n != 1 || item == nil {
			return nil
		}
		s := sandbox{labels: make(map[string]string), annotations: make(map[string]string)}
		err := fields(item, func(n protowire.Number, v uint64, b []byte) error {
			switch n {
			case 1:
				s.id = string(b)
			case 2:
				return fields(b, func(n protowire.Number, _ uint64, b []byte) error {
					switch n {
					case 1:
						s.name = string(b)
					case 2:
						s.uid = string(b)
					case 3:
						s.namespace = string(b)
					}
					return nil
				})
			case 4:
				s.created = int64(v)
			case 5:
				return pair(b, s.labels)
			case 6:
				return pair(b, s.annotations)
			}
			return nil
		})
		if s.uid != "" {
			all = append(all, s)
		}
		return err
	})
	return all, err
}

func parseContainers(b []byte) ([]container, error) {
	var all []container
	err := fields(b, func(n protowire.Number, _ uint64, item []byte) error {
		if n != 1 || item == nil {
			return nil
		}
		var c container
		err := fields(item, func(n protowire.Number, _ uint64, b []byte) error {
			switch n {
			case 1:
				c.id = string(b)
			case 2:
				c.sandbox = string(b)
			case 3:
				return fields(b, func(n protowire.Number, _ uint64, b []byte) error {
					if n == 1 {
						c.name = string(b)
					}
					return nil
				})
			}
			return nil
		})
		if c.id != "" {
			all = append(all, c)
		}
		return err
	})
	return all, err
}

// pair reads an entry of a map<string, string>.
func pair(b []byte, into map[string]string) error {
	var k, v string
	err := fields(b, func(n protowire.Number, _ uint64, b []byte) error {
		switch n {
		case 1:
			k = string(b)
		case 2:
			v = string(b)
		}
		return nil
	})
	if k != "" {
		into[k] = v
	}
	return err
}

// fields calls f with each field of a message: its number, and its value as a
// number or as bytes, which are not nil. Other kinds of fields are passed over.
func fields(b []byte, f func(n protowire.Number, v uint64, bytes []byte) error) error {
	for len(b) > 0 {
		n, kind, size := protowire.ConsumeTag(b)
		if size < 0 {
			return protowire.ParseError(size)
		}
		b = b[size:]
		var v uint64
		var bytes []byte
		switch kind {
		case protowire.VarintType:
			v, size = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			bytes, size = protowire.ConsumeBytes(b)
			if bytes == nil {
				bytes = []byte{}
			}
		default:
			size = protowire.ConsumeFieldValue(n, kind, b)
		}
		if size < 0 {
			return protowire.ParseError(size)
		}
		b = b[size:]
		if kind != protowire.VarintType && kind != protowire.BytesType {
			continue
		}
		if err := f(n, v, bytes); err != nil {
			return err
		}
	}
	return nil
}
