package kube

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// nodeList is a list of what is kept of each node, in the form that the client library wants.
type nodeList struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []runtime.Object // *node
}

// DeepCopyObject implements runtime.Object. Nobody changes a list.
func (l *nodeList) DeepCopyObject() runtime.Object { return l }

// GetObjectKind implements runtime.Object.
func (o *node) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject implements runtime.Object. Nobody changes a node.
func (o *node) DeepCopyObject() runtime.Object { return o }

// protobufPrefix is what protobuf of an API server begins with. Behind it is a message that has the encoded list in a
// field.
const protobufPrefix = "k8s\x00"

// Numbers of fields.
const (
	encodedList = 2 // of the message behind the prefix (runtime.Unknown)
	listMeta    = 1 // of a list
	listItem    = 2
)

// maxPart bounds one object of a list, in bytes: etcd's default limit is a tenth of it.
const maxPart = 16 << 20

// readList reads a list of nodes in protobuf. An API server without the streaming list sends all nodes in one message,
// of ten kilobytes each: they are read one by one, and the message is never held as a whole.
func (n Names) readList(r *bufio.Reader) (*nodeList, error) {
	if _, err := r.Discard(len(protobufPrefix)); err != nil {
		return nil, fmt.Errorf("read the list of nodes: %w", err)
	}
	out, found := &nodeList{}, false
	whole := &message{r: r, left: math.MaxInt64, open: true}
	err := whole.each(func(field uint64, m *message) error {
		if field != encodedList {
			return m.skip()
		}
		found = true
		return m.each(func(field uint64, part *message) error { return n.readPart(out, field, part) })
	})
	if err == nil && !found {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("read the list of nodes: %w", err)
	}
	return out, nil
}

// readPart takes a field of a list in.
func (n Names) readPart(out *nodeList, field uint64, m *message) error {
	if field != listMeta && field != listItem {
		return m.skip()
	}
	text, err := m.bytes()
	if err != nil {
		return err
	}
	if field == listMeta {
		return out.ListMeta.Unmarshal(text)
	}
	o := &corev1.Node{}
	if err := o.Unmarshal(text); err != nil {
		return err
	}
	out.Items = append(out.Items, n.nodeOf(o))
	return nil
}

// message is a part of a stream that consists of fields, each with a number, a length and so many bytes.
type message struct {
	r    *bufio.Reader
	left int64 // bytes until its end
	open bool  // it ends with the stream
}

// each calls f with each field, which f has to read or to skip.
func (m *message) each(f func(field uint64, m *message) error) error {
	for m.left > 0 {
		if _, err := m.r.Peek(1); errors.Is(err, io.EOF) && m.open {
			return nil
		}
		tag, err := binary.ReadUvarint(m)
		if err != nil {
			return noEOF(err)
		}
		length, err := binary.ReadUvarint(m)
		if err != nil {
			return noEOF(err)
		}
		const delimited = 2 // the type of fields with a length: the only one here
		if tag&7 != delimited || length > uint64(m.left) {
			return fmt.Errorf("invalid protobuf: field %d has wire type %d and %d bytes", tag>>3, tag&7, length)
		}
		m.left -= int64(length)
		if err := f(tag>>3, &message{r: m.r, left: int64(length)}); err != nil {
			return err
		}
	}
	return nil
}

// ReadByte implements io.ByteReader.
func (m *message) ReadByte() (byte, error) {
	if m.left == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	m.left--
	return m.r.ReadByte()
}

func (m *message) skip() error {
	_, err := io.CopyN(io.Discard, m.r, m.left)
	return noEOF(err)
}

func (m *message) bytes() ([]byte, error) {
	if m.left > maxPart {
		return nil, fmt.Errorf("an object of %d bytes is larger than the limit of %d bytes", m.left, maxPart)
	}
	text := make([]byte, m.left)
	_, err := io.ReadFull(m.r, text)
	return text, noEOF(err)
}

// noEOF says of a stream that ends within a message that this was not expected.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
