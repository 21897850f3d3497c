package subnet

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// pair is a key of a JSON object with its value.
type pair struct {
	key   string
	value json.RawMessage
}

// Move returns the text of a network configuration with these backends instead of its own, and everything else as it
// was. A setting without a type is left out.
func Move(text []byte, main, next, previous, migrated Setting) ([]byte, error) {
	pairs, err := pairsOf(text)
	if err != nil {
		return nil, err
	}
	for _, one := range []struct {
		key     string
		setting Setting
	}{{"Backend", main}, {"Next", next}, {"Previous", previous}, {"Migrated", migrated}} {
		pairs = put(pairs, one.key, one.setting)
	}
	var b bytes.Buffer
	b.WriteByte('{')
	for i, p := range pairs {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := json.Marshal(p.key)
		if err != nil {
			return nil, fmt.Errorf("write network configuration: %w", err)
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(p.value)
	}
	b.WriteByte('}')
	var out bytes.Buffer
	if !bytes.ContainsRune(bytes.TrimSpace(text), '\n') {
		err = json.Compact(&out, b.Bytes())
	} else {
		err = json.Indent(&out, b.Bytes(), "", "  ")
	}
	if err != nil {
		return nil, fmt.Errorf("write network configuration: %w", err)
	}
	return out.Bytes(), nil
}

// put sets a key, which stays where it was, or takes it away.
func put(pairs []pair, key string, s Setting) (out []pair) {
	value := json.RawMessage(s.Object)
	if len(value) == 0 {
		value = fmt.Appendf(nil, `{"Type":%q}`, s.Type)
	}
	done := s.Type == ""
	for _, p := range pairs {
		if !strings.EqualFold(p.key, key) {
			out = append(out, p)
		} else if !done {
			out, done = append(out, pair{p.key, value}), true
		}
	}
	if !done {
		out = append(out, pair{key, value})
	}
	return out
}

// pairsOf returns the keys of a JSON object in their order.
func pairsOf(text []byte) (pairs []pair, err error) {
	if _, err := parseObject(text); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if _, err := d.Token(); err != nil {
		return nil, fmt.Errorf("read network configuration: %w", err)
	}
	for d.More() {
		var p pair
		key, err := d.Token()
		if err == nil {
			err = d.Decode(&p.value)
		}
		if err != nil {
			return nil, fmt.Errorf("read network configuration: %w", err)
		}
		p.key, _ = key.(string) // what stands before a value of an object
		pairs = append(pairs, p)
	}
	return pairs, nil
}
