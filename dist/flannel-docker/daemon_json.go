package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"flanneld/subnet"
)

// entry is one key of a JSON object with its value as it stands in the file.
type entry struct {
	key   string
	value json.RawMessage
}

// keysOfOurs are those that writeDaemonJSON sets.
var keysOfOurs = []string{"bip", "mtu", "ip-masq", "ipv6", "fixed-cidr-v6", directRouting}

// directRouting is the key by which docker 28 and later let packets from other hosts reach containers.
const directRouting = "allow-direct-routing"

// writeDaemonJSON sets our keys in docker's configuration file, or takes them out. The order and the values of all
// others stay, and so do the file's mode and a symbolic link to it. A file that is as it should be is not touched; one
// that is no JSON object is an error.
func writeDaemonJSON(ctx context.Context, o options) error {
	path, old, mode, err := readConfig(o.daemonJSON)
	if err != nil {
		return err
	}
	object, err := parseObject(old)
	if err != nil {
		return fmt.Errorf("%s is left as it is: %w", path, err)
	}
	if o.remove {
		object = slices.DeleteFunc(object, func(e entry) bool { return slices.Contains(keysOfOurs, e.key) })
	} else if object, err = setSubnet(ctx, object, o.subnetFile); err != nil {
		return err
	}
	text, err := renderObject(object)
	if err != nil {
		return err
	}
	if bytes.Equal(text, old) || sameJSON(text, old) || len(object) == 0 && len(old) == 0 {
		return nil
	}
	if o.remove && len(object) == 0 && path == o.daemonJSON {
		return os.Remove(path) // it had nothing but our keys
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return replaceFile(path, text, mode)
}

// maxConfig bounds docker's configuration file, in bytes.
const maxConfig = 1 << 20

// readConfig returns the file behind a path, its content and its mode. A file that does not exist is an empty one.
func readConfig(name string) (path string, text []byte, mode fs.FileMode, err error) {
	path = name
	if target, err := filepath.EvalSymlinks(name); err == nil {
		path = target
	}
	text, err = subnet.ReadFile(path, maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return path, nil, 0o644, nil
	}
	if err != nil {
		return "", nil, 0, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", nil, 0, err
	}
	return path, text, info.Mode().Perm(), nil
}

// setSubnet sets our keys from the subnet file. The IPv6 ones are set only for a network that has IPv6.
func setSubnet(ctx context.Context, object []entry, subnetFile string) ([]entry, error) {
	e, bridge, err := readSubnet(subnetFile)
	if err != nil {
		return nil, err
	}
	object = set(object, "bip", bridge.String())
	if e.MTU > 0 {
		object = set(object, "mtu", e.MTU)
	}
	object = set(object, "ip-masq", !e.IPMasq)
	object = setDirectRouting(ctx, object)
	for _, p := range e.Subnets {
		if p.Addr().Is6() {
			object = set(set(object, "ipv6", true), "fixed-cidr-v6", p.String())
		}
	}
	return object, nil
}

// setDirectRouting sets the key if the docker daemon of this host knows it. One that does not, perhaps after a
// downgrade, refuses to start with it.
func setDirectRouting(ctx context.Context, object []entry) []entry {
	help, err := exec.CommandContext(ctx, "dockerd", "--help").Output()
	switch {
	case err != nil:
		return object // it is not known which docker this host has
	case bytes.Contains(help, []byte("--"+directRouting)):
		return set(object, directRouting, true)
	}
	return slices.DeleteFunc(object, func(e entry) bool { return e.key == directRouting })
}

// set replaces the value of a key in place, or appends the key. Strings, numbers and booleans always have a JSON form.
func set(object []entry, key string, value any) []entry {
	text, _ := json.Marshal(value)
	if i := slices.IndexFunc(object, func(e entry) bool { return e.key == key }); i >= 0 {
		object[i].value = text
		return object
	}
	return append(object, entry{key, text})
}

// parseObject reads one JSON object and nothing else. Blank text is an empty object.
func parseObject(text []byte) ([]entry, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	switch t, err := d.Token(); {
	case err != nil:
		return nil, fmt.Errorf("not valid JSON: %w", err)
	case t != json.Delim('{'):
		return nil, errors.New("not a JSON object")
	}
	var object []entry
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("not valid JSON: %w", err)
		}
		e := entry{key: t.(string)} // the decoder sees to it that keys are strings
		if err := d.Decode(&e.value); err != nil {
			return nil, fmt.Errorf("value of %q: %w", e.key, err)
		}
		if slices.ContainsFunc(object, func(o entry) bool { return o.key == e.key }) {
			return nil, fmt.Errorf("key %q stands there twice", e.key)
		}
		object = append(object, e)
	}
	if _, err := d.Token(); err != nil {
		return nil, fmt.Errorf("not valid JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON object")
	}
	return object, nil
}

func renderObject(object []entry) ([]byte, error) {
	var flat, out bytes.Buffer
	flat.WriteByte('{')
	for i, e := range object {
		if i > 0 {
			flat.WriteByte(',')
		}
		key, err := json.Marshal(e.key)
		if err != nil {
			return nil, err
		}
		flat.Write(key)
		flat.WriteByte(':')
		flat.Write(e.value)
	}
	flat.WriteByte('}')
	if err := json.Indent(&out, flat.Bytes(), "", "    "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// sameJSON reports whether two texts differ in blanks only.
func sameJSON(a, b []byte) bool {
	var x, y bytes.Buffer
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}
