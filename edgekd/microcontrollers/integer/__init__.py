"""An int8 student in integers alone: what runs where there is no runtime, and the same arithmetic in numpy.

quantised network --lower--> IntegerNetwork --reference--> scores
                                            --(C)--> the same scores, bit for bit
"""
