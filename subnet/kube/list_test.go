package kube

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	"flanneld/subnet/annotation"
)

func defaultNames(t testing.TB) Names {
	t.Helper()
	n, err := NewNames(annotation.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// encoded returns a list as an API server sends it.
func encoded(t testing.TB, nodes ...corev1.Node) []byte {
	t.Helper()
	s := runtime.NewScheme()
	if err := corev1.AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	l := &corev1.NodeList{Items: nodes}
	l.APIVersion, l.Kind, l.ResourceVersion = "v1", "NodeList", "77"
	var b bytes.Buffer
	if err := protobuf.NewSerializer(s, s).Encode(l, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func reader(text []byte) *bufio.Reader { return bufio.NewReader(bytes.NewReader(text)) }

func TestAListIsReadAsItsNodes(t *testing.T) {
	n := defaultNames(t)
	for _, count := range []int{0, 1, 3} {
		var nodes []corev1.Node
		for i := range count {
			nodes = append(nodes, *realNode(n, i))
		}
		got, err := n.readList(reader(encoded(t, nodes...)))
		if err != nil {
			t.Fatal(err)
		}
		if got.ResourceVersion != "77" || !slices.EqualFunc(got.Items, nodes, func(o runtime.Object, want corev1.Node) bool {
			return o.(*node).name == want.Name && o.(*node).same(n.nodeOf(&want))
		}) {
			t.Errorf("got version %s and %d nodes, want 77 and the %d that were sent", got.ResourceVersion, len(got.Items),
				count)
		}
	}
}

// A list that is cut off must not look like one that lacks nodes.
func TestAListThatIsCutOffIsAnError(t *testing.T) {
	n := defaultNames(t)
	small := corev1.Node{}
	small.Name = "a"
	text := encoded(t, small, small)
	end := bytes.LastIndex(text, []byte("a")) // behind the last node come fields that nobody needs
	for i := range end {
		if l, err := n.readList(reader(text[:i])); err == nil {
			t.Errorf("%d of %d bytes: got %d nodes, want an error", i, len(text), len(l.Items))
		}
	}
}

// repeated is the bytes of a list with one node many times, and looks at the memory when all but the last of them are
// read.
type repeated struct {
	head, item []byte
	left       int
	seen       func()
}

func (r *repeated) Read(p []byte) (int, error) {
	if len(r.head) == 0 {
		if r.left == 0 {
			return 0, io.EOF
		}
		if r.left--; r.left == 0 {
			r.seen()
		}
		r.head = r.item
	}
	count := copy(p, r.head)
	r.head = r.head[count:]
	return count, nil
}

func TestALongListIsNeverHeldAsAWhole(t *testing.T) {
	n := defaultNames(t)
	const count, most = 5000, 6 << 20
	text, err := realNode(n, 1).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	item := append(binary.AppendUvarint([]byte{listItem<<3 | 2}, uint64(len(text))), text...)
	head := binary.AppendUvarint([]byte(protobufPrefix+"\x12"), uint64(count*len(item)))
	var during int64
	before := inUse()
	l, err := n.readList(bufio.NewReader(&repeated{head: head, item: item, left: count,
		seen: func() { during = inUse() - before }}))
	if err != nil || len(l.Items) != count {
		t.Fatalf("got %d nodes, %v, want %d", len(l.Items), err, count)
	}
	t.Logf("%d bytes for a list of %d", during, count*len(item))
	if during > most {
		t.Errorf("reading a list of %d bytes takes %d, want %d at most", count*len(item), during, most)
	}
}

// FuzzList reads lists of any content: it neither panics nor takes more memory than the list has bytes.
func FuzzList(f *testing.F) {
	n := defaultNames(f)
	o := corev1.Node{}
	o.Name, o.Annotations = "a", map[string]string{n.Managed: "true"}
	f.Add(encoded(f, o, o))
	f.Add([]byte(protobufPrefix + "\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f"))
	f.Add([]byte(protobufPrefix + strings.Repeat("\x12\x02", 10)))
	f.Fuzz(func(t *testing.T, text []byte) {
		if l, err := n.readList(reader(text)); err == nil && len(l.Items) > len(text) {
			t.Errorf("%d nodes of %d bytes", len(l.Items), len(text))
		}
	})
}
