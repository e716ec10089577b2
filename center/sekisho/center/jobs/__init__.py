"""What operators signed for boxes: kept, sent until each box has answered, and shown as the boxes tell it.

`book` is what other rooms call; `python -m sekisho.center.jobs` sends. No key of an operator's is here, and whether
those who signed may do so is each box's to judge.
"""
