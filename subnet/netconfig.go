package subnet

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"
)

// resumeWait is how long a host that could serve traffic from its state waits for the store first.
const resumeWait = time.Second

// WaitConfig returns the network configuration as soon as the store has a valid one, naming in the log what is
// missing or wrong. If the store does not answer and the last run has left a usable state, it is
// that run's configuration. It returns an error only when ctx ends.
func (m *Manager) WaitConfig(ctx context.Context) (Config, error) {
	pause, said := backoff{}, ""
	for {
		snap, err := m.listConfig(ctx)
		if ctx.Err() != nil {
			return Config{}, ctx.Err()
		}
		if err == nil {
			m.storeUp()
			c, err := m.parse(snap.Config)
			if err == nil {
				m.first, m.firstAt = &snap, time.Now()
				m.useConfig(c, snap.Config)
				return c, nil
			}
			said = m.sayConfig(said, snap.Config, err)
			if m.awaitConfig(ctx, snap.Position) {
				pause = backoff{}
			}
			sleep(ctx, pause.next(firstPause, maxPause))
			continue
		}
		m.storeDown(ctx, err)
		if text := []byte(m.o.State.Config); len(text) > 0 {
			c, err := ParseConfig(text)
			m.useConfig(c, text)
			return c, err
		}
		sleep(ctx, pause.next(firstPause, maxPause))
	}
}

func (m *Manager) parse(text []byte) (Config, error) {
	c, err := ParseConfig(text)
	if err != nil {
		return Config{}, err
	}
	return c, m.o.Check(c)
}

func (m *Manager) listConfig(ctx context.Context) (Snapshot, error) {
	if m.o.State.Config == "" {
		return m.store.List(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, resumeWait)
	defer cancel()
	return m.store.List(ctx)
}

// sayConfig names a configuration that is missing or wrong, once each, and returns what it said.
func (m *Manager) sayConfig(said string, text []byte, err error) string {
	key := m.o.Prefix + "/config"
	waiting := fmt.Sprintf("network configuration %s is wrong: %v", key, err)
	if text == nil {
		waiting = fmt.Sprintf("network configuration %s is missing", key)
	}
	if waiting == said {
		return said
	}
	m.mu.Lock()
	m.status.Waiting = waiting
	m.mu.Unlock()
	poke(m.changed)
	m.log.Warn("waiting for the network configuration", "key", key, "reason", waiting,
		"hint", `etcdctl put `+key+` '{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}'`)
	return waiting
}

// awaitConfig waits until the configuration may have changed, and reports whether it has.
func (m *Manager) awaitConfig(ctx context.Context, after Position) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed := false
	err := m.store.Watch(ctx, after, func(events []Event) {
		if slices.ContainsFunc(events, func(ev Event) bool { return ev.ConfigSet }) {
			changed = true
			cancel()
		}
	})
	if ctx.Err() == nil {
		m.storeDown(ctx, err)
	}
	return changed
}

// UseConfig fixes the configuration: that of the store is not looked at.
func (m *Manager) UseConfig(c Config, text []byte) {
	m.fixed = true
	m.useConfig(c, text)
}

func (m *Manager) useConfig(c Config, text []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.config, m.text = c, string(text)
	m.self = m.keptLocked(c)
	m.status.Waiting = ""
	poke(m.changed)
}

// keptLocked returns the leases of the last run, if this network can have them.
func (m *Manager) keptLocked(c Config) []Lease {
	own := m.o.State.Own.Leases
	if len(own) != len(c.Pools) || own[0].BackendType != c.BackendType {
		return nil
	}
	for i, l := range own {
		if !c.Pools[i].Holds(l.Subnet) {
			return nil
		}
	}
	return own
}

// setConfig follows a change at run time. What can take effect at once is the range of later leases; anything
// else waits for a restart, and nothing breaks meanwhile.
func (m *Manager) setConfig(text []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fixed || string(text) == m.text {
		m.status.Pending = ""
		return
	}
	pending := ""
	c, err := m.parse(text)
	switch {
	case text == nil:
		pending = "the network configuration was deleted, the last one stays in force"
	case err != nil:
		pending = fmt.Sprintf("the network configuration is wrong, the last one stays in force: %v", err)
	case c.BackendType != m.config.BackendType || !sameJSON(c.Backend, m.config.Backend):
		pending = "the backend of the network configuration has changed: restart to use it"
	case !sameRange(c.Pools, m.config.Pools):
		pending = "the network of the network configuration has changed: restart to use it"
	default:
		m.config, m.text = c, string(text)
		m.log.Info("network configuration changed, later leases obey it", "config", fmt.Sprintf("%.1000s", m.text))
	}
	if pending != "" && pending != m.status.Pending {
		m.log.Warn("configuration pending", "key", m.o.Prefix+"/config", "reason", pending)
	}
	m.status.Pending = pending
}

// sameJSON reports whether two objects say the same, whatever their blanks and the order of their keys.
func sameJSON(a, b []byte) bool {
	var x, y any
	return bytes.Equal(a, b) || json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

// sameRange reports whether every lease that is valid under one configuration is valid under the other.
func sameRange(a, b []Pool) bool {
	return slices.EqualFunc(a, b, func(a, b Pool) bool { return a.Network == b.Network && a.SubnetLen == b.SubnetLen })
}
