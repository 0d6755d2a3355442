package api

import (
	"fmt"
	"slices"
	"strings"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
)

// The printer columns are those that `kubectl get` shows of upstream, name for name: scripts cut them by position.

// column makes a Column of a function that knows its kind.
func column[T Object](name, kind string, priority int32, cell func(T, time.Time) any) Column {
	return Column{
		Name: name, Type: kind, Priority: priority, Description: name + " of the object",
		Cell: func(o Object, now time.Time) any { return cell(o.(T), now) },
	}
}

// text, wide and count are the usual sorts of column.
func text[T Object](name string, cell func(T) string) Column {
	return column(name, "string", 0, func(o T, _ time.Time) any { return cell(o) })
}
func wide[T Object](name string, cell func(T) string) Column {
	return column(name, "string", 1, func(o T, _ time.Time) any { return cell(o) })
}
func count[T Object, N int | int32 | int64](name string, cell func(T) N) Column {
	return column(name, "integer", 0, func(o T, _ time.Time) any { return int64(cell(o)) })
}

var (
	nameColumn = Column{Name: "Name", Type: "string", Format: "name", Description: "Name of the object", Cell: func(o Object, _ time.Time) any { return o.GetName() }}
	ageColumn  = Column{Name: "Age", Type: "string", Description: "Time since the object was created", Cell: func(o Object, now time.Time) any {
		return Age(o.GetCreationTimestamp(), now)
	}}
	createdAtColumn = Column{Name: "Created At", Type: "date", Description: "When the object was created", Cell: func(o Object, _ time.Time) any {
		return o.GetCreationTimestamp().UTC().Format(time.RFC3339)
	}}
	createdAtColumns = []Column{nameColumn, createdAtColumn}
)

// DefaultColumns are a kind's that names none.
var DefaultColumns = []Column{nameColumn, ageColumn}

// ScaleColumns are those of the scale subresource, whatever it scales.
var ScaleColumns = columns(
	count("Desired", func(s *autoscalingv1.Scale) int32 { return s.Spec.Replicas }),
	count("Available", func(s *autoscalingv1.Scale) int32 { return s.Status.Replicas }),
)

// columns puts Name before and Age behind.
func columns(between ...Column) []Column {
	return slices.Concat([]Column{nameColumn}, between, []Column{ageColumn})
}

// columnsThenWide also has columns behind Age, which only -o wide shows.
func columnsThenWide(between []Column, behind ...Column) []Column {
	return slices.Concat([]Column{nameColumn}, between, []Column{ageColumn}, behind)
}

// Age is how kubectl shows a moment.
func Age(t metav1.Time, now time.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(t.Time))
}

func orNone(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// joined lists at most few of parts and counts the rest, as kubectl does.
func joined(parts []string, few int) string {
	switch {
	case len(parts) == 0:
		return "<none>"
	case few > 0 && len(parts) > few:
		return fmt.Sprintf("%s + %d more...", strings.Join(parts[:few], ","), len(parts)-few)
	}
	return strings.Join(parts, ",")
}

func selectorText(s *metav1.LabelSelector) string { return metav1.FormatLabelSelector(s) }
