package foreign

// PlanForward returns the lines that let the networks pass in a table filter that "iptables -S" printed.
func PlanForward(text string, r Rules) []string {
	t := parseIPT(text)
	return t.plan(forwardHook("FLANNELD-FORWARD", t, r.Networks))
}

// PlanLeftovers returns the lines that remove what flannel has left in a table.
func PlanLeftovers(table, text string) []string { return planLeftovers(table, parseIPT(text)) }

// PlanAll makes every plan for a table that a program has printed.
func PlanAll(text string, r Rules) []string {
	lines := PlanForward(text, r)
	for table := range leftovers {
		lines = append(lines, PlanLeftovers(table, text)...)
	}
	return append(lines, parseIPT(text).plan(masqueradeHook("X", r, true))...)
}
