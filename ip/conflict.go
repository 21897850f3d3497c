package ip

import (
	"errors"
	"fmt"
	"slices"
)

// Conflict is the failure to create a route because one with its destination and metric stands there already, which is
// not ours and stays.
type Conflict struct {
	Want, Found Route
}

func (c *Conflict) Error() string {
	return fmt.Sprintf("the route %s is there already, is not the daemon's and stays", c.Found)
}

// conflicts are those of a reconciler, by the key of the route.
type conflicts map[Object]*Conflict

// take splits the error of an Apply into conflicts with routes that are not in the scope, which are remembered, and the
// rest.
func (c conflicts) take(scope Scope, err error) error {
	var failed OpErrors
	if !errors.As(err, &failed) {
		return err // the outcome is not known
	}
	var rest OpErrors
	for _, op := range failed {
		var found *Conflict
		if errors.As(op.Err, &found) && !scope.Owns(found.Found) {
			c[keyOf(found.Want)] = found
			continue
		}
		rest = append(rest, op)
	}
	return rest.orNil()
}

// prepare keeps the operations of a pass from replacing what is in conflict, and forgets the conflicts that they
// concern: their outcome says whether they last.
func (c conflicts) prepare(ops []Op) {
	if len(c) == 0 {
		return
	}
	for i, op := range ops {
		key := keyOf(op.Object)
		if _, ok := c[key]; ok {
			ops[i].Create = !op.Delete
			delete(c, key)
		}
	}
}

// about returns the conflict about what has the key of an object; nil: there is none.
func (c conflicts) about(o Object) *Conflict {
	if len(c) == 0 || o == nil {
		return nil
	}
	return c[keyOf(o)]
}

// sorted returns them in the order of their routes.
func (c conflicts) sorted() []Conflict {
	out := make([]Conflict, 0, len(c))
	for _, one := range c {
		out = append(out, *one)
	}
	slices.SortFunc(out, func(a, b Conflict) int { return a.Want.compare(b.Want) })
	return out
}
