package ip

import "sync"

// Managed is what a backend manages of the kernel's state. Reconcile is called by one goroutine, all else by any.
type Managed struct {
	*Reconciler
	own Scope // of the backend

	mu    sync.Mutex // guards all below
	scope Scope      // own, and until the first clean pass the leftovers of earlier runs
}

// NewManaged returns the state of a host that is in the scope of a backend, and the leftovers of earlier runs.
func NewManaged(h Host, own Scope) *Managed {
	return &Managed{Reconciler: NewReconciler(h.Kernel, h.Log), own: own, scope: own.With(h.Leftovers)}
}

// Reconcile makes the kernel hold exactly want of all that is in the scope. See Reconciler.
func (m *Managed) Reconcile(want Snapshot) error {
	_, err := m.Reconciler.Reconcile(m.Scope(), want)
	if err == nil {
		m.mu.Lock()
		m.scope = m.own
		m.mu.Unlock()
	}
	return err
}

// Clear deletes all that is in the scope of the backend.
func (m *Managed) Clear() error {
	_, err := m.Reconciler.Reconcile(m.own, Snapshot{})
	return err
}

// Scope returns what may be left in the kernel, for the next run to clean up.
func (m *Managed) Scope() Scope {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.scope
}
