package kube

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// With thousands of nodes the memory of the daemon is that of its nodes, and so is what it holds while a list comes in.
func TestWhatIsKeptOfANodeIsSmall(t *testing.T) {
	n := defaultNames(t)
	keep := (&nodeStore{o: Options{Names: n}}).Transformer()
	const count, most = 1000, 900 // bytes
	kept := make([]any, count)
	before := inUse()
	for i := range kept {
		var err error
		if kept[i], err = keep(realNode(n, i)); err != nil {
			t.Fatal(err)
		}
	}
	each := (inUse() - before) / count
	runtime.KeepAlive(kept)
	t.Logf("%d bytes", each)
	if each > most {
		t.Errorf("a node takes %d bytes, want %d at most", each, most)
	}
}

func inUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// realNode is an object of the size of real ones. Its strings are its own, as after decoding.
func realNode(n Names, i int) *corev1.Node {
	own := func(format string, args ...any) string { return strings.Clone(fmt.Sprintf(format, args...)) }
	o := &corev1.Node{}
	o.Name, o.UID, o.ResourceVersion = own("node-%05d.example.com", i), "01234567-89ab-cdef-0123-456789abcdef",
		own("%d", 1000000+i)
	o.Spec.PodCIDR = own("10.%d.%d.0/24", 1+i>>8, i&0xff)
	o.Spec.PodCIDRs = []string{o.Spec.PodCIDR}
	o.Annotations = map[string]string{
		own("%s", n.Managed): own("true"), own("%s", n.BackendType): own("vxlan"),
		own("%s", n.PublicIP[0]):                           own("198.18.%d.%d", i>>8, i&0xff),
		own("%s", n.BackendData[0]):                        own(`{"VNI":1,"VtepMAC":"02:00:00:00:%02x:%02x"}`, i>>8, i&0xff),
		own("%s", n.BackendData[1]):                        own("null"),
		"kubectl.kubernetes.io/last-applied-configuration": strings.Repeat("x", 1000),
	}
	for j := range 25 {
		name := own("registry.example.com/team-%d/some-service-with-a-long-name-%d", j, j)
		o.Status.Images = append(o.Status.Images,
			corev1.ContainerImage{Names: []string{name + "@sha256:" + strings.Repeat("0123456789abcdef", 4), name + ":v1.2.3"}})
	}
	return o
}
