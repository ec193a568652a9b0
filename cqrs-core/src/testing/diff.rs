//! Readable differences.

use std::fmt::{Debug, Write};

/// What differs between two lists, line by line: `-` was expected, `+` was found.
pub(super) fn diff<T: Debug>(expected: &[T], found: &[T]) -> String {
    let (expected, found) = (lines(expected), lines(found));
    let common = common(&expected, &found);
    let mut text = String::new();
    let (mut left, mut right) = (0, 0);
    let mut line = |sign: char, line: &str| {
        writeln!(text, "{sign} {line}").expect("writing to a String cannot fail");
    };
    while left < expected.len() || right < found.len() {
        let is_same =
            left < expected.len() && right < found.len() && expected[left] == found[right];
        if is_same {
            line(' ', &expected[left]);
            (left, right) = (left + 1, right + 1);
        } else if right >= found.len()
            || left < expected.len() && common[left + 1][right] >= common[left][right + 1]
        {
            line('-', &expected[left]);
            left += 1;
        } else {
            line('+', &found[right]);
            right += 1;
        }
    }
    text
}

fn lines<T: Debug>(items: &[T]) -> Vec<String> {
    let texts = items.iter().map(|item| format!("{item:#?}"));
    texts
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// How many lines the rests from each pair of places on have in common, in order.
fn common(left: &[String], right: &[String]) -> Vec<Vec<usize>> {
    let mut common = vec![vec![0; right.len() + 1]; left.len() + 1];
    for i in (0..left.len()).rev() {
        for j in (0..right.len()).rev() {
            common[i][j] = if left[i] == right[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_common_stands_once() {
        let text = diff(&[Some(1), Some(2), None], &[Some(1), Some(3), None, None]);
        let expected = "  Some(
      1,
  )
  Some(
-     2,
+     3,
  )
  None
+ None
";
        assert_eq!(text, expected);
        assert_eq!(diff::<i32>(&[], &[]), "");
    }
}
